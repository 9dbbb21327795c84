"""The Kubernetes API as this service uses it: plain objects over one asynchronous connection pool."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

log = logging.getLogger("management.kube")

Json = dict[str, Any]
MANAGER = "management"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"


@dataclass(frozen=True)
class Resource:
    """A kind by the path that its objects have."""

    api: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        parts = [*(["namespaces", namespace] if namespace else []), self.plural, name, subresource]
        return "/".join([root, *(quote(part, safe="") for part in parts if part)])


CONFIG_MAPS = Resource("v1", "configmaps")
EVENTS = Resource("v1", "events")
NAMESPACES = Resource("v1", "namespaces")
NODES = Resource("v1", "nodes")
PODS = Resource("v1", "pods")
SECRETS = Resource("v1", "secrets")
SERVICES = Resource("v1", "services")
DEPLOYMENTS = Resource("apps/v1", "deployments")
GATEWAYS = Resource("gateway.networking.k8s.io/v1", "gateways")
HTTP_ROUTES = Resource("gateway.networking.k8s.io/v1", "httproutes")
TRAFFIC_POLICIES = Resource("gateway.envoyproxy.io/v1alpha1", "backendtrafficpolicies")
BACKENDS = Resource("gateway.envoyproxy.io/v1alpha1", "backends")
AI_ROUTES = Resource("aigateway.envoyproxy.io/v1beta1", "aigatewayroutes")
AI_BACKENDS = Resource("aigateway.envoyproxy.io/v1beta1", "aiservicebackends")
INFERENCE_SERVICES = Resource("serving.kserve.io/v1beta1", "inferenceservices")
PUBLICATIONS = Resource("management.inference-in-a-box/v1alpha1", "publishedmodels")


class KubeError(Exception):
    """The API refused: its status, reason and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class KubeDown(Exception):
    """The API did not answer."""


class Kube:
    """One Kubernetes API, as one service account.

    Args:
        url: of the API.
        token: file with the account's token; read again whenever it changes, as the kubelet renews it.
        ca: file of the API's certificate authority.
    """

    def __init__(self, url: str, token: Path, ca: Path) -> None:
        self._url, self._token_file, self._ca = url, token, ca
        self._token, self._read_at = "", 0
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    # --- single objects

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        return await self._send("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Json | None:
        """The object, or None if there is none (or its kind is not known here)."""
        try:
            return await self.get(resource, namespace, name)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def all(self, resource: Resource, namespace: str | None = None, labels: str = "") -> list[Json]:
        return list((await self._list(resource, namespace, labels)).get("items") or [])

    async def all_if_known(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        """All objects; none when the cluster does not know the kind."""
        try:
            return await self.all(resource, namespace)
        except KubeError as error:
            if error.status == 404:
                return []
            raise

    async def create(self, resource: Resource, document: Json) -> Json:
        return await self._send("POST", resource.path(document["metadata"].get("namespace")), document)

    async def apply(self, resource: Resource, document: Json) -> Json:
        """Server-side apply: the object is as told here, whoever made it."""
        meta = document["metadata"]
        return await self._send(
            "PATCH",
            resource.path(meta.get("namespace"), meta["name"]),
            document,
            query={"fieldManager": MANAGER, "force": "true"},
            media="application/apply-patch+yaml",
        )

    async def replace(self, resource: Resource, document: Json) -> Json:
        """Only if nobody changed it meanwhile: the document carries the `resourceVersion` it was read with."""
        meta = document["metadata"]
        return await self._send("PUT", resource.path(meta.get("namespace"), meta["name"]), document)

    async def replace_spec(self, resource: Resource, namespace: str | None, name: str, spec: Json) -> Json:
        """Its wishes as a whole, whatever is written of it meanwhile (its status, its finalizers)."""
        change = [{"op": "replace", "path": "/spec", "value": spec}]
        return await self._send("PATCH", resource.path(namespace, name), change, media="application/json-patch+json")

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, change: Json, subresource: str = ""
    ) -> Json:
        path = resource.path(namespace, name, subresource)
        return await self._send("PATCH", path, change, media="application/merge-patch+json")

    async def delete(self, resource: Resource, namespace: str | None, name: str, unchanged_since: int = 0) -> bool:
        """Whether there was such an object, and it was deleted.

        Args:
            unchanged_since: its resource version when it was judged; what has changed since stays. 0: whatever it is.
        """
        options = {"preconditions": {"resourceVersion": str(unchanged_since)}} if unchanged_since else None
        try:
            await self._send("DELETE", resource.path(namespace, name), options)
        except KubeError as error:
            if error.status == 404 or (unchanged_since and error.status == 409):
                return False
            raise
        return True

    # --- reading for people

    async def read(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> Any:
        """Any path; JSON, or text where the API gives text (logs)."""
        return await self._send("GET", path, query=query, accept=accept)

    async def alive(self) -> bool:
        try:
            await self._send("GET", "/readyz", timeout=2.0)
        except (KubeDown, KubeError):
            return False
        return True

    # --- watching

    async def follow(self, resource: Resource, namespace: str | None = None) -> AsyncIterator[tuple[str, Json]]:
        """What happens to the objects of a kind, for ever: `(LISTED, {"items": [...]})`, then each change.

        After a break everything is listed again. While the API is away it is asked again every second.
        """
        while True:
            try:
                listed = await self._list(resource, namespace, "")
                yield "LISTED", {"items": listed.get("items") or []}
                async for event in self._watch(resource, namespace, listed["metadata"]["resourceVersion"]):
                    yield event["type"], event["object"]
            except (KubeDown, KubeError, ValueError, KeyError) as problem:
                log.warning("watching %s: %s", resource.plural, problem)
                await asyncio.sleep(1)

    async def _watch(self, resource: Resource, namespace: str | None, version: str) -> AsyncIterator[Json]:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "300", "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(5.0, read=320.0)
        try:
            async with self._client().stream(
                "GET", resource.path(namespace), params=query, headers=self._headers(), timeout=timeout
            ) as stream:
                if stream.status_code != 200:
                    raise KubeError(stream.status_code, "Watch", f"watch gave {stream.status_code}")
                async for line in stream.aiter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise KubeError(410, "Expired", event["object"].get("message", "watch ended"))
                    if event["type"] != "BOOKMARK":
                        yield event
        except httpx.HTTPError as problem:
            raise KubeDown(f"the Kubernetes API does not answer ({type(problem).__name__})") from None

    # --- transport

    async def _list(self, resource: Resource, namespace: str | None, labels: str) -> Json:
        return await self._send("GET", resource.path(namespace), query={"labelSelector": labels} if labels else None)

    async def _send(
        self,
        method: str,
        path: str,
        document: Json | list[Json] | None = None,
        query: Mapping[str, str] | None = None,
        media: str = "application/json",
        accept: str = "",
        timeout: float = 10.0,
    ) -> Any:
        headers = self._headers() | ({"content-type": media} if document is not None else {})
        if accept:
            headers["accept"] = accept
        content = json.dumps(document).encode() if document is not None else None
        try:
            reply = await self._client().request(
                method, path, content=content, params=query, headers=headers, timeout=timeout
            )
        except httpx.HTTPError as problem:
            raise KubeDown(f"the Kubernetes API does not answer ({type(problem).__name__})") from None
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        body = reply.json() if is_json else reply.text
        if reply.is_success:
            return body
        status: Json = body if isinstance(body, dict) else {"message": str(body)[:300]}
        raise KubeError(reply.status_code, status.get("reason", ""), status.get("message", ""))

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            try:
                context = ssl.create_default_context(cafile=str(self._ca))
            except OSError as problem:
                raise KubeDown(f"no certificate authority of the Kubernetes API ({problem.strerror})") from None
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=32)
            self._http = httpx.AsyncClient(base_url=self._url, verify=context, limits=limits, trust_env=False)
        return self._http

    def _headers(self) -> dict[str, str]:
        try:
            changed = self._token_file.stat().st_mtime_ns
            if changed != self._read_at:
                self._token, self._read_at = self._token_file.read_text().strip(), changed
        except OSError as problem:
            raise KubeDown(f"no token for the Kubernetes API ({problem.strerror})") from None
        return {"authorization": f"Bearer {self._token}", "accept": "application/json"}
