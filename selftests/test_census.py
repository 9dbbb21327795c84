"""What a platform's Kubernetes says that runs: its version, its nodes, the images of its containers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import closed_port, serving
from small_api import SmallApi, kubeconfig

from inferencebox import census
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.kubernetes import Kube

TOLD = {
    "kubeletVersion": "v1.33.4",
    "containerRuntimeVersion": "containerd://2.1.3",
    "osImage": "Debian GNU/Linux 12",
    "kernelVersion": "6.12",
    "architecture": "amd64",
}
SIDECAR, MODEL, SETUP = "docker.io/istio/proxyv2:1.26.2", "inference-in-a-box/model-server:0.1.0", "busybox:1"


def node(name: str, told: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"nodeInfo": told}}


def pod(name: str, **states: str) -> dict[str, Any]:
    """With a container that sets up, a sidecar and a model; each in the state named, or in none yet."""
    images = {"setup": SETUP, "sidecar": SIDECAR, "model": MODEL}
    listed = [{"name": each, "state": {states[each]: {}}, "image": "sha256:0f"} for each in images if each in states]
    containers = [{"name": each, "image": image} for each, image in images.items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "tenant-a"},
        "spec": {"initContainers": containers[:2], "containers": containers[2:]},
        "status": {
            "initContainerStatuses": [each for each in listed if each["name"] != "model"],
            "containerStatuses": [each for each in listed if each["name"] == "model"],
        },
    }


@pytest.fixture
def api() -> SmallApi:
    return SmallApi(node("control-plane", TOLD), node("registered-only", {}))


@pytest.fixture
def kube(api: SmallApi, tmp_path: Path) -> Iterator[Kube]:
    with serving(api) as server:
        yield Kube(kubeconfig(server.endpoint, tmp_path))


def test_nodes_say_what_they_are_and_those_without_a_kubelet_nothing(kube: Kube) -> None:
    seen = census.take(kube)
    assert seen["kubernetes"] == "v1.33.4"
    assert seen["nodes"] == {
        "control-plane": {
            "kubelet": "v1.33.4",
            "runtime": "containerd://2.1.3",
            "system": "Debian GNU/Linux 12",
            "kernel": "6.12",
            "architecture": "amd64",
        }
    }


def test_images_are_those_of_containers_that_run_each_once_and_sidecars_too(api: SmallApi, kube: Kube) -> None:
    api.put(pod("one", setup="terminated", sidecar="running", model="running"))
    api.put(pod("two", setup="terminated", sidecar="running", model="waiting"))
    api.put(pod("three"))
    assert census.take(kube)["images"] == [SIDECAR, MODEL]


def test_a_platform_without_pods_has_no_images(kube: Kube) -> None:
    assert census.take(kube)["images"] == []


def test_who_does_not_answer_is_not_made_up(tmp_path: Path) -> None:
    nobody = Kube(kubeconfig(Endpoint("http", "127.0.0.1", closed_port()), tmp_path))
    with pytest.raises(SetupProblem):
        census.take(nobody)
