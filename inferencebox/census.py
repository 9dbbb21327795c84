"""What runs on a platform, as its Kubernetes says: versions seen, beside those that a release pins."""

from collections.abc import Iterator, Mapping
from typing import Any

from inferencebox.probes.kubernetes import Kube

Seen = dict[str, object]


def take(kube: Kube) -> Seen:
    """Ask a platform's Kubernetes what it is and what it runs.

    Returns:
        `kubernetes`, the API server's version; `nodes`, what the kubelets say of themselves, by name; `images`, the
        references of all containers that run now. A platform without kubelets (`local`) has neither nodes nor images.

    Raises:
        SetupProblem: the API server gives no answer.
        KubeRefused: it refuses one.
    """
    nodes = kube.list("nodes").require()["items"]
    pods = kube.list("pods").require()["items"]
    return {
        "kubernetes": kube.version(),
        "nodes": {node["metadata"]["name"]: told for node in nodes if (told := _told(node))},
        "images": sorted({image for pod in pods for image in running_images(pod)}),
    }


def _told(node: Mapping[str, Any]) -> dict[str, str]:
    """Nothing of a node that was only registered."""
    about = (node.get("status") or {}).get("nodeInfo") or {}
    names = {
        "kubelet": "kubeletVersion",
        "runtime": "containerRuntimeVersion",
        "system": "osImage",
        "kernel": "kernelVersion",
        "architecture": "architecture",
    }
    return {name: about[field] for name, field in names.items()} if about.get("kubeletVersion") else {}


def running_images(pod: Mapping[str, Any]) -> Iterator[str]:
    """What the containers of a pod that run now run from, sidecars that began before the others among them.

    References as the pod asks for them: a status may name what the node's store calls the image.
    """
    asked = {each["name"]: each["image"] for each in _of(pod["spec"], "initContainers", "containers")}
    for each in _of(pod.get("status") or {}, "initContainerStatuses", "containerStatuses"):
        if "running" in (each.get("state") or {}):
            yield asked[each["name"]]


def _of(holder: Mapping[str, Any], *fields: str) -> Iterator[Mapping[str, Any]]:
    return (each for field in fields for each in holder.get(field) or ())
