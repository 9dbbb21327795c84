"""Kubernetes objects that a platform on a cluster consists of beside its layers: pods of ours, and finding others."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from inferencebox.layers.fingerprint import fingerprint
from inferencebox.manifests import Document
from inferencebox.platform import Workload, WorkloadSpec
from inferencebox.probes.kubernetes import Kube, is_ready
from inferencebox.providers import connections, replicas
from inferencebox.providers.kubernetes import relay

OURS = "inferencebox"
"""Our own namespace."""
BESIDE = "beside"
"""The pod in the node's network, among its processes: where packet captures and outsiders' connections start from."""
ADDED_LABEL = "inference-in-a-box/added"
"""On replicas that came after the platform was up."""
INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
QUEUE_PORT = 8012
"""Of Knative's queue-proxy, which hands requests on to the model in its pod."""
LOCALITY = "istio-locality"
MODELS = "/models"
SIDECAR = "istio-proxy"
KEEPER = """
trap 'kill $child 2>/dev/null; exit 0' TERM INT
while :; do
  if [ -e /run/keeper/stopped ]; then sleep 0.1; continue; fi
  "$@" & child=$!; echo $child > /run/keeper/pid; wait $child; sleep 0.2
done
"""
"""Runs a program again whenever it ends, unless it is to be stopped: a replica's program can end without its pod."""
REQUESTS = {"cpu": "5m", "memory": "48Mi"}
LIMITS = {"cpu": "400m", "memory": "384Mi"}
LATE = 5
"""Seconds after which a replica that says nothing counts as not ready. One that says so does at once."""


def service_account(namespace: str, name: str) -> Document:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def pod(spec: WorkloadSpec, image: str, added: bool, traced: bool) -> Document:
    """A replica as a pod.

    Args:
        added: whether it came after the platform was up.
        traced: whether a model sends spans.
    """
    labels = {
        "app": spec.app,
        "version": spec.version,
        replicas.KIND_LABEL: spec.program,
        **({ADDED_LABEL: "true"} if added else {}),
        **({LOCALITY: spec.locality.replace("/", ".")} if spec.locality else {}),
        "sidecar.istio.io/inject": "true" if spec.mesh else "false",
        **spec.labels,
    }
    metadata = {"name": spec.name, "namespace": spec.namespace, "labels": labels, "annotations": _annotations(spec)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "serviceAccountName": spec.service_account or spec.app,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 2,
            "containers": [_container(spec, image, traced)],
            "volumes": [{"name": "keeper", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        },
    }


def _annotations(spec: WorkloadSpec) -> dict[str, str]:
    if not spec.mesh:
        return {}
    return {
        "readiness.status.sidecar.istio.io/initialDelaySeconds": "0",
        "readiness.status.sidecar.istio.io/periodSeconds": "5",
        "proxy.istio.io/config": f'{{"proxyMetadata": {{"SECRET_TTL": "{spec.certificate_life}"}}}}',
    }


def _container(spec: WorkloadSpec, image: str, traced: bool) -> dict[str, Any]:
    spans = replicas.spans(spec.namespace, spec.app) if traced and "model" in spec.program else {}
    program = replicas.command(spec, MODELS)
    command = ["sh", "-c", KEEPER, "keeper", *program] if program else ["sleep", "infinity"]
    container: dict[str, Any] = {
        "name": spec.program,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": [{"name": name, "value": value} for name, value in {**spans, **replicas.environment(spec)}.items()],
        "resources": {"requests": REQUESTS, "limits": LIMITS},
        "volumeMounts": [{"name": "keeper", "mountPath": "/run/keeper"}],
    }
    if program:
        container["ports"] = [{"name": "http", "containerPort": replicas.MODEL_PORT}]
    if spec.readiness:
        ask = {"path": replicas.ready_path(spec), "port": replicas.MODEL_PORT}
        container["readinessProbe"] = {
            "httpGet": ask,
            "periodSeconds": 1,
            "failureThreshold": 1,
            "timeoutSeconds": LATE,
        }
    return container


def beside(image: str) -> list[Document]:
    """The pod in the node's network and among its processes, with a relay in it. Another relay, another pod."""
    files = {module.__name__: inspect.getsource(module) for module in (relay, connections)}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BESIDE, "namespace": OURS},
            "data": files,
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": BESIDE, "namespace": OURS, "labels": {"app": BESIDE}},
            "spec": {
                "hostNetwork": True,
                "hostPID": True,
                "dnsPolicy": "ClusterFirstWithHostNet",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": BESIDE,
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python3", "-u", "-m", relay.__name__],
                        "env": [
                            {"name": "PYTHONPATH", "value": "/relay"},
                            {"name": "RELAY", "value": fingerprint([], *files.values())},
                        ],
                        "securityContext": {
                            "runAsUser": 0,
                            "capabilities": {"add": ["NET_RAW", "NET_ADMIN", "SYS_PTRACE"]},
                        },
                        "resources": {"requests": REQUESTS, "limits": {"cpu": "1", "memory": "256Mi"}},
                        "volumeMounts": [{"name": "relay", "mountPath": "/relay"}],
                    }
                ],
                "volumes": [{"name": "relay", "configMap": {"name": BESIDE, "items": [*map(_module_file, files)]}}],
            },
        },
    ]


def _module_file(name: str) -> dict[str, str]:
    """Where a module lies so that it is found by its name."""
    return {"key": name, "path": f"{name.replace('.', '/')}.py"}


def workload(found: Mapping[str, Any]) -> Workload:
    """A pod as scenarios see it."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    labels = metadata.get("labels") or {}
    containers = [*spec["containers"], *(spec.get("initContainers") or [])]
    return Workload(
        namespace=metadata["namespace"],
        name=metadata["name"],
        app=labels.get(INFERENCE_SERVICE) or labels.get("app", metadata["name"]),
        version=labels.get("version", "v1"),
        address=status.get("podIP", ""),
        labels={**labels, **({"app": labels[INFERENCE_SERVICE]} if INFERENCE_SERVICE in labels else {})},
        locality=labels.get(LOCALITY, "").replace(".", "/"),
        mesh=any(container["name"] == SIDECAR for container in containers),
        service_account=spec.get("serviceAccountName", ""),
        port=QUEUE_PORT if INFERENCE_SERVICE in labels else replicas.MODEL_PORT,
    )


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether a pod is a replica that scenarios may know."""
    labels = found["metadata"].get("labels") or {}
    return _is_running(found) and (replicas.KIND_LABEL in labels or is_served(found))


def is_served(found: Mapping[str, Any]) -> bool:
    """Whether a pod is a replica of an InferenceService."""
    return INFERENCE_SERVICE in (found["metadata"].get("labels") or {})


def selector_of(labels: Mapping[str, str]) -> str:
    """Selects what has all of these labels, as the API takes it."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def pod_behind(kube: Kube, namespace: str, service: str, port: int) -> tuple[str, int] | None:
    """A pod of a Service, one that is ready if any is (`kubectl port-forward` asks for no more), and its port there."""
    reply = kube.get("service", service, namespace)
    if not reply.ok:
        return None
    spec = reply.require()["spec"]
    selector = selector_of(spec.get("selector") or {})
    target = next((each.get("targetPort", port) for each in spec["ports"] if each["port"] == port), port)
    pods = [pod for pod in kube.list("pods", namespace, selector).items if _is_running(pod)]
    for found in sorted(pods, key=is_ready, reverse=True):
        return found["metadata"]["name"], _number(found, target)
    return None


def _is_running(found: Mapping[str, Any]) -> bool:
    return found.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in found["metadata"]


def _number(found: Mapping[str, Any], port: int | str) -> int:
    if isinstance(port, int):
        return port
    named: Sequence[Mapping[str, Any]] = [
        each for container in found["spec"]["containers"] for each in container.get("ports") or []
    ]
    return next((int(each["containerPort"]) for each in named if each.get("name") == port), 0)
