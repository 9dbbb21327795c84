"""The models of a namespace: KServe's InferenceServices, and Services declared for models where there is no KServe.

A Service says nothing about readiness, so the model itself is asked, as KServe's readiness probe does.
"""

import asyncio
import time
from typing import Any

import httpx

from management.errors import ApiError
from management.kube import AI_ROUTES, INFERENCE_SERVICES, PODS, SERVICES, Kube, KubeError
from management.schemas import Model, ModelChange, ModelType, ModelWish
from management.settings import Settings

OPENAI_FORMATS = {"huggingface"}
ASK_SECONDS = 2.0
CLASS = "serving.kserve.io/autoscalerClass"


class Models:
    """What the platform serves.

    Args:
        kube: the API.
        settings: of the service.
    """

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._http = httpx.AsyncClient(trust_env=False, timeout=ASK_SECONDS)
        self._asked: dict[str, tuple[float, bool]] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def all(self, namespaces: list[str]) -> list[Model]:
        """By namespace and name."""
        found = await asyncio.gather(*(self._in(namespace) for namespace in namespaces))
        return sorted((model for models in found for model in models), key=lambda each: (each.namespace, each.name))

    async def find(self, namespace: str, name: str) -> Model | None:
        return next((model for model in await self._in(namespace, name) if model.name == name), None)

    async def get(self, namespace: str, name: str) -> Model:
        if (model := await self.find(namespace, name)) is None:
            raise ApiError(404, f"there is no model {name} in {namespace}")
        return model

    async def create(self, namespace: str, wish: ModelWish) -> dict[str, Any]:
        if await self._service(namespace, wish.name) is not None:
            raise ApiError(409, f"there is a model {wish.name} in {namespace} already")
        try:
            return await self._kube.create(INFERENCE_SERVICES, inference_service(namespace, wish))
        except KubeError as error:
            raise _refused(error, wish.name, namespace) from None

    async def change(self, namespace: str, name: str, change: ModelChange) -> dict[str, Any]:
        """Only what the change names."""
        current = await self._own(namespace, name)
        spec = current["spec"]["predictor"]
        model: dict[str, Any] = {}
        if change.framework:
            model["modelFormat"] = {"name": change.framework}
        if change.storage_uri:
            model["storageUri"] = change.storage_uri
        given = {
            "minReplicas": change.min_replicas,
            "maxReplicas": change.max_replicas,
            "scaleTarget": change.scale_target,
            "scaleMetric": change.scale_metric,
        }
        predictor = {name: value for name, value in given.items() if value is not None}
        after = {**spec, **predictor}
        if after.get("minReplicas", 0) > after.get("maxReplicas", after.get("minReplicas", 0)):
            raise ApiError(400, "invalid configuration", ["minReplicas is more than maxReplicas"])
        if model:
            predictor["model"] = model
        try:
            return await self._kube.patch(INFERENCE_SERVICES, namespace, name, {"spec": {"predictor": predictor}})
        except KubeError as error:
            raise _refused(error, name, namespace) from None

    async def delete(self, namespace: str, name: str) -> None:
        await self._own(namespace, name)
        await self._kube.delete(INFERENCE_SERVICES, namespace, name)

    async def logs(self, namespace: str, name: str, lines: int) -> dict[str, str]:
        """Of each pod."""
        await self.get(namespace, name)
        labels = f"serving.kserve.io/inferenceservice={name}"
        pods = await self._kube.all(PODS, namespace, labels) or await self._kube.all(PODS, namespace, f"app={name}")
        found: dict[str, str] = {}
        for pod in pods:
            container = pod["spec"]["containers"][0]["name"]
            query = {"tailLines": str(lines), "container": container}
            path = PODS.path(namespace, pod["metadata"]["name"], "log")
            try:
                found[pod["metadata"]["name"]] = str(await self._kube.read(path, query))
            except KubeError as error:
                found[pod["metadata"]["name"]] = f"(no log: {error.message[:200]})"
        return found

    # --- one namespace

    async def _own(self, namespace: str, name: str) -> dict[str, Any]:
        """The InferenceService that can be changed here."""
        found = await self._kube.find(INFERENCE_SERVICES, namespace, name)
        if found is None:
            if await self._service(namespace, name) is not None:
                told = "it is part of the platform's installation, not an InferenceService"
                raise ApiError(409, f"{name} can't be changed here", told)
            raise ApiError(404, f"there is no model {name} in {namespace}")
        return found

    async def _service(self, namespace: str, name: str) -> dict[str, Any] | None:
        service = await self._kube.find(SERVICES, namespace, name)
        return service if service and _is_model(service) else None

    async def _in(self, namespace: str, name: str = "") -> list[Model]:
        if name:
            one = await asyncio.gather(
                self._kube.find(INFERENCE_SERVICES, namespace, name), self._service(namespace, name)
            )
            services, declared = [each for each in one[:1] if each], [each for each in one[1:] if each]
        else:
            services, everything = await asyncio.gather(
                self._kube.all_if_known(INFERENCE_SERVICES, namespace), self._kube.all(SERVICES, namespace)
            )
            known = {service["metadata"]["name"] for service in services}
            declared = [each for each in everything if _is_model(each) and each["metadata"]["name"] not in known]
        routes = await self._kube.all_if_known(AI_ROUTES, namespace) if declared else []
        openai = {route["metadata"]["name"].removeprefix("openai-") for route in routes}
        told = await asyncio.gather(*(self._of_service(each, openai) for each in declared))
        return [*(_of_inference_service(each) for each in services), *told]

    async def _of_service(self, service: dict[str, Any], openai: set[str]) -> Model:
        meta = service["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        ready = await self._ready(name, namespace)
        api: ModelType = "openai" if name in openai else "traditional"
        return Model(
            name=name,
            namespace=namespace,
            status="Ready" if ready else "NotReady",
            ready=ready,
            url=f"http://{self._settings.predictor_host.format(model=name, namespace=namespace)}",
            predictor={"service": f"{name}.{namespace}.svc.cluster.local"},
            created_at=meta["creationTimestamp"],
            status_details={"source": "the model's own answer to GET /v2/health/ready"},
            kind="Service",
            api=api,
        )

    async def _ready(self, name: str, namespace: str) -> bool:
        url = f"http://{name}.{namespace}.svc.cluster.local/v2/health/ready"
        when, answer = self._asked.get(url, (0.0, False))
        if time.monotonic() - when < 1.0:
            return answer
        try:
            ready = (await self._http.get(url)).status_code == 200
        except httpx.HTTPError:
            ready = False
        self._asked[url] = time.monotonic(), ready
        return ready


def _is_model(service: dict[str, Any]) -> bool:
    labels = service["metadata"].get("labels") or {}
    return "tenant" in labels and labels.get("app") == service["metadata"]["name"]


def _of_inference_service(document: dict[str, Any]) -> Model:
    meta, predictor = document["metadata"], document["spec"].get("predictor", {})
    status = document.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    ready = conditions.get("Ready", {}).get("status") == "True"
    model = predictor.get("model", {})
    name = model.get("modelFormat", {}).get("name", "")
    return Model(
        name=meta["name"],
        namespace=meta["namespace"],
        status="Ready" if ready else "NotReady" if conditions else "Pending",
        ready=ready,
        url=status.get("url", ""),
        predictor={"framework": name, "storageUri": model.get("storageUri"), **_scale(predictor)},
        created_at=meta["creationTimestamp"],
        status_details={"conditions": list(conditions.values())},
        kind="InferenceService",
        api="openai" if name in OPENAI_FORMATS else "traditional",
    )


def _scale(predictor: dict[str, Any]) -> dict[str, Any]:
    names = ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric")
    return {name: predictor[name] for name in names if name in predictor}


def inference_service(namespace: str, wish: ModelWish) -> dict[str, Any]:
    """CPU and memory need the HPA class (SPEC D16)."""
    hpa = {CLASS: "hpa"} if wish.scale_metric in ("cpu", "memory") else {}
    predictor = {
        "minReplicas": wish.min_replicas,
        "maxReplicas": wish.max_replicas,
        "scaleTarget": wish.scale_target,
        "scaleMetric": wish.scale_metric,
        "serviceAccountName": "model",
        "model": {"modelFormat": {"name": wish.framework}, "storageUri": wish.storage_uri},
    }
    return {
        "apiVersion": INFERENCE_SERVICES.api,
        "kind": "InferenceService",
        "metadata": {
            "name": wish.name,
            "namespace": namespace,
            "labels": {"app": wish.name, "tenant": namespace},
            "annotations": hpa,
        },
        "spec": {"predictor": predictor},
    }


def _refused(error: KubeError, name: str, namespace: str) -> ApiError:
    if error.status == 409:
        return ApiError(409, f"there is a model {name} in {namespace} already")
    if (error.status == 404 and not error.reason.startswith("NotFound")) or "could not find" in error.message:
        told = "the cluster has no KServe (kind InferenceService of serving.kserve.io/v1beta1)"
        return ApiError(503, "models can't be made here", told)
    if error.status == 404:
        return ApiError(404, f"there is no namespace {namespace}")
    if error.status in (400, 403, 422):
        return ApiError(400, "the cluster refused the model", error.message[:500])
    return ApiError(503, "the cluster did not take the model", error.message[:500], {"retry-after": "5"})
