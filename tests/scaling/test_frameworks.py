"""Models of several frameworks, loaded from a registry of models by KServe's own means."""

import copy
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures.scenario import not_exercised, scenario
from fixtures.services import ONE_AT_A_TIME
from inferencebox.checks import answered, body_json, equals, that
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube
from inferencebox.release import Release
from inferencebox.traffic import Stream
from inferencebox.waiting import Timeouts, confirm, eventually

NEEDS = ("gateway", "autoscaling", "pods")
PORT = 8000
IRIS_FILE = "iris.joblib"
PAST_THE_SIDECAR = {"traffic.sidecar.istio.io/excludeOutboundPorts": str(PORT)}
"""A model is fetched before its pod's sidecar runs."""
RESOURCES = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}
RUNTIMES = {
    "pytorch": (
        "kserve-torchserve",
        "it is TorchServe: Java, and PyTorch, which PyPI has for Linux with CUDA only (ten packages, gigabytes)",
    ),
    "tensorflow": ("kserve-tensorflow-serving", "it is TensorFlow Serving, whose server no package registry has"),
    "huggingface": (
        "kserve-huggingfaceserver",
        "it takes PyTorch, which PyPI has for Linux with CUDA only, and vLLM (gigabytes)",
    ),
}
"""Framework -> the image of KServe's runtime for it, as a release would name it; why it can't be put together here."""


def pixels(picture: str) -> list[float]:
    return [float(brightness) for brightness in picture.split()]


DIGITS = {
    0: pixels(
        "0 0 5 13 9 1 0 0  0 0 13 15 10 15 5 0  0 3 15 2 0 11 8 0  0 4 12 0 0 8 8 0 "
        "0 5 8 0 0 9 8 0  0 4 11 0 1 12 7 0  0 2 14 5 10 12 0 0  0 0 6 13 10 0 0 0"
    ),
    4: pixels(
        "0 0 0 1 11 0 0 0  0 0 0 7 8 0 0 0  0 0 1 13 6 2 2 0  0 0 7 15 0 9 8 0 "
        "0 5 16 10 0 16 6 0  0 4 15 16 13 16 1 0  0 0 0 3 15 10 0 0  0 0 0 2 16 4 0 0"
    ),
}
"""The first 0 and the first 4 of the pictures that our model server's digits were trained with: 8x8, from 0 to 16."""


@dataclass(frozen=True)
class Registry:
    """Where trained models can be fetched: files by HTTP, in a namespace that tenants may reach for that."""

    namespace: str

    def uri(self, file: str) -> str:
        return f"http://models.{self.namespace}.svc.cluster.local:{PORT}/{file}"


@pytest.fixture
def registry(platform: Platform, kube: Kube) -> Iterator[Registry]:
    """A registry of the test's own, with the small models that our model server was trained with."""
    name = f"registry-{uuid.uuid4().hex[:6]}"
    image, _ = platform.container("model")
    labels = {"app": "models"}
    server = {
        "name": "models",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "http.server", str(PORT), "--directory", "/models"],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "resources": RESOURCES,
    }
    inside: dict[str, Any] = {"name": "models", "namespace": name, "labels": labels}
    spec = {"containers": [server], "terminationGracePeriodSeconds": 0}
    ports = {"selector": labels, "ports": [{"name": "http", "port": PORT}]}
    role = {"inference-in-a-box/role": "model-registry"}
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": role}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": inside, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": inside, "spec": ports},
    ]
    try:
        kube.apply(documents[0])[0].require()
        eventually(lambda: kube.get("serviceaccount", "default", name).ok, equals(True))  # no pod gets in before it
        for reply in kube.apply(documents[1:]):
            reply.require()
        kube.wait_condition("pod", "models", name, "Ready", within=Timeouts.current().first_ready)
        yield Registry(name)
    finally:
        kube.delete_all(documents)


def sklearn(uri: str) -> dict[str, Any]:
    """A predictor that KServe makes itself: a format, and where the model is."""
    return {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri, "resources": copy.deepcopy(RESOURCES)}}


@scenario("SCL-13", needs=NEEDS, sabotage="networkpolicy.registry-shut-out", seconds=60)
@pytest.mark.parametrize("framework", ["sklearn", "onnx", *RUNTIMES])
def test_models_of_each_framework_are_served(framework, own_service, request, gateway, tenant_a, platform, story):
    """A model of each framework gets ready and predicts, by KServe's runtime for it or by the platform's own server."""
    image, why = RUNTIMES.get(framework, ("", ""))
    if image and image not in Release.load(platform.release).images:
        not_exercised(
            f"the release names no image of KServe's runtime for {framework}, and none can be assembled: {why}"
        )
    with story.when("the model is declared, and is ready"):
        if framework == "sklearn":
            registry = request.getfixturevalue("registry")
            predictor = sklearn(registry.uri(IRIS_FILE))
            service = own_service("tenant-a", predictor=predictor, annotations=PAST_THE_SIDECAR, max_replicas=1)
        else:
            serving = ["--kind", framework, "--name", "{name}"]
            pictures = [*DIGITS.values()]
            service = own_service("tenant-a", program="model", arguments=serving, max_replicas=1, example=pictures)
    with story.then("it predicts, and is right"):
        if framework == "sklearn":
            right = body_json("predictions", equals([0]))
            confirm(gateway.predict(service, tenant_a.token)(), answered(200) & right)
        else:
            seen = confirm(gateway.predict(service, tenant_a.token, json={"instances": pictures})(), answered(200))
            confirm([found["class"] for found in seen.json()["predictions"]], equals([*DIGITS]))


def _says_why(status: Mapping[str, Any]) -> bool:
    failure = status.get("lastFailureInfo", {})
    blocked = status.get("transitionStatus") == "BlockedByFailedLoad"
    return blocked and failure.get("reason") == "ModelLoadFailed" and bool(failure.get("message", "").strip())


BLOCKED = that("BlockedByFailedLoad, by a ModelLoadFailed with a message", _says_why)


@scenario("SCL-14", needs=NEEDS, sabotage="networkpolicy.registry-shut-out", group=ONE_AT_A_TIME, seconds=200)
def test_a_model_that_cannot_be_fetched_leaves_the_old_one_serving(own_service, registry, gateway, tenant_a, story):
    """A model is loaded from where it says; told to load one that is not there it says why, and the old one serves."""
    # KServe looks when Knative gives a pod up, and says why if its initialiser has failed by then: after up to a minute
    given_up = 100.0
    impatient = {"serving.knative.dev/progress-deadline": f"{given_up:.0f}s"}
    with story.given("a model that was fetched from a registry, and serves"):
        predictor = sklearn(registry.uri(IRIS_FILE))
        service = own_service("tenant-a", predictor=predictor, annotations=PAST_THE_SIDECAR | impatient, max_replicas=1)
    ask = gateway.predict(service, tenant_a.token).called("a prediction")
    with Stream(ask, rate=2) as stream:
        with story.when("it is told to fetch a model that is not there"):
            stream.mark("a model that is not there")
            service.change(model={"storageUri": registry.uri("nothing.joblib")})
        with story.then("it says that it could not be loaded, and why"):
            within = given_up + Timeouts.current().first_ready
            status = eventually(service.model_status, BLOCKED, within=within, every=0.5)
            story.note("what it says", str(status["lastFailureInfo"]))
        with story.then("and it does not count as ready"):
            eventually(service.ready, equals("False"), within=within, every=0.5)
        stream.collect(6)
        window = stream.window("a model that is not there")
    with story.then("while the old one answered everybody"):
        confirm(window.by_status, equals({"200": window.requests}))
