"""GPUs: which node a model is put on, decided by the real scheduler. The pods are placed and never run."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.scenario import scenario
from inferencebox.checks import answered, equals, matches, one_of, refused, that
from inferencebox.probes.kubernetes import Kube, KubeReply
from inferencebox.waiting import confirm, consistently, eventually

GPU = "nvidia.com/gpu"
LABEL, TAINT = "inference-in-a-box/fleet", "inference-in-a-box/fleet"


@dataclass
class Fleet:
    """Nodes of the test's own, which take only its own pods.

    Args:
        name: label and taint of its nodes.
    """

    kube: Kube
    name: str
    nodes: list[str] = field(default_factory=list)
    pods: list[tuple[str, str]] = field(default_factory=list)

    def node(self, kind: str, cpu: str, gpus: int = 0) -> str:
        """A node with so much room. GPU nodes are tainted, as vendors advise, for pods that ask for GPUs only."""
        name = f"{self.name}-{kind}"
        room = {"cpu": cpu, "memory": "16Gi", "pods": "20", **({GPU: str(gpus)} if gpus else {})}
        taints = [{"key": TAINT, "value": self.name, "effect": "NoSchedule"}]
        taints += [{"key": GPU, "value": "present", "effect": "NoSchedule"}] if kind == "gpu" else []
        metadata = {"name": name, "labels": {LABEL: self.name, "kubernetes.io/hostname": name}}
        status = {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Registered"}],
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status}
        self.nodes.append(name)
        self.kube.create(node).require()
        # admission marks a new node as not ready; who clears that in a cluster looks for a kubelet
        self.kube.patch("node", name, None, {"spec": {"taints": taints}}).require()
        return name

    def plug_in(self, node: str, gpus: int) -> None:
        """What a device plugin's kubelet tells: the node has so many GPUs now."""
        room = {GPU: str(gpus)}
        self.kube.patch("node/status", node, None, {"status": {"capacity": room, "allocatable": room}}).require()

    def model(self, tenant: str, name: str, cpu: str = "100m", gpus: int = 0) -> "Placed":
        """A model's pod, as a model server's deployment would make it."""
        extended = {GPU: str(gpus)} if gpus else {}
        resources = {
            "requests": {"cpu": cpu, "memory": "64Mi", **extended},
            "limits": {"cpu": cpu, "memory": "64Mi", **extended},
        }
        tolerations = [{"key": TAINT, "value": self.name, "effect": "NoSchedule"}]
        tolerations += [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if gpus else []
        labels = {"fleet": self.name, "sidecar.istio.io/inject": "false"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{self.name}-{name}", "namespace": tenant, "labels": labels},
            "spec": {
                "containers": [{"name": "model", "image": "model", "resources": resources}],
                "nodeSelector": {LABEL: self.name},
                "tolerations": tolerations,
                "terminationGracePeriodSeconds": 0,
            },
        }
        reply = self.kube.create(pod)
        if reply.ok:
            self.pods.append((tenant, f"{self.name}-{name}"))
        return Placed(self.kube, tenant, f"{self.name}-{name}", reply)

    def clear(self) -> None:
        for tenant, name in self.pods:
            self.kube.delete("pod", name, tenant)
        for node in self.nodes:
            self.kube.delete("node", node)


@dataclass(frozen=True)
class Placed:
    """A pod, and a probe of where the scheduler put it."""

    kube: Kube
    namespace: str
    name: str
    created: KubeReply

    def node(self) -> str:
        """The node's name; without one, the scheduler's reason."""
        pod: Mapping[str, Any] = self.kube.get("pod", self.name, self.namespace).require()
        if where := pod["spec"].get("nodeName"):
            return str(where)
        conditions = {each["type"]: each for each in pod["status"].get("conditions", [])}
        verdict = conditions.get("PodScheduled", {})
        return f"{pod['status'].get('phase')}: {verdict.get('reason', 'undecided')}: {verdict.get('message', '')}"


@pytest.fixture
def fleet(kube: Kube) -> Iterator[Fleet]:
    """Nodes and pods of the test's own, removed afterwards."""
    fleet = Fleet(kube, f"fleet-{uuid.uuid4().hex[:6]}")
    yield fleet
    fleet.clear()


@scenario("GPU-01", needs=("kubernetes.scheduler",), sabotage="scheduler.overruled", seconds=3)
def test_a_cpu_model_lands_on_a_cpu_node_with_its_requests(fleet, story):
    """A model without GPU is put on a CPU node with the CPU it asks for, also when a GPU node has more room."""
    with story.given("a CPU node with 1 CPU, and a GPU node with far more"):
        cpu_node, gpu_node = fleet.node("cpu", cpu="1"), fleet.node("gpu", cpu="16", gpus=1)
    with story.then("a model that asks for 600 m lands on the CPU node"):
        first = fleet.model("tenant-a", "first", cpu="600m")
        confirm(first.created, answered(201))
        eventually(first.node, equals(cpu_node))
    with story.then(
        "where its requests are reserved: a second one of 600 m finds no room, and does not take the GPU node"
    ):
        second = fleet.model("tenant-a", "second", cpu="600m")
        eventually(second.node, matches(r"Pending: Unschedulable: .*1 Insufficient cpu"))
        consistently(second.node, ~one_of(cpu_node, gpu_node), seconds=1)
    with story.then("one of 300 m fits beside the first"):  # the rest is for what a cluster runs on each of its nodes
        eventually(fleet.model("tenant-a", "third", cpu="300m").node, equals(cpu_node))


@scenario("GPU-02", needs=("kubernetes.scheduler",), sabotage="scheduler.overruled", seconds=3)
def test_without_a_gpu_a_gpu_model_waits_and_others_do_not(fleet, story):
    """A model that needs a GPU where there is none stays pending for that reason, and the others are placed."""
    with story.given("a CPU node only"):
        node = fleet.node("cpu", cpu="8")
    with story.then("a GPU model waits: Insufficient nvidia.com/gpu"):
        waiting = fleet.model("tenant-a", "on-gpu", gpus=1)
        confirm(waiting.created, answered(201))
        eventually(waiting.node, matches(r"Pending: Unschedulable: .*Insufficient nvidia\.com/gpu"))
    with story.then("a model without GPU, made after it, is placed at once"):
        eventually(fleet.model("tenant-a", "on-cpu").node, equals(node))
    with story.then("and the GPU model still waits"):
        consistently(waiting.node, matches(r"Insufficient nvidia\.com/gpu"), seconds=1)


@scenario(
    "GPU-03",
    needs=("kubernetes.scheduler", "kubernetes.quota"),
    sabotage=("gpu-quota.removed", "scheduler.overruled"),
    seconds=5,
)
def test_a_gpu_model_gets_the_gpu_and_the_tenant_only_its_share(fleet, story):
    """When a device plugin brings GPUs, the waiting model is put there; the tenant's second GPU is beyond its quota."""
    with story.given("a CPU node, a node for GPUs that has none yet, and a model that waits for one"):
        fleet.node("cpu", cpu="8")
        node = fleet.node("gpu", cpu="8")
        waiting = fleet.model("tenant-b", "first", gpus=1)
        eventually(waiting.node, matches(r"Insufficient nvidia\.com/gpu"))
    with story.when("the device plugin reports two GPUs"):
        fleet.plug_in(node, 2)
    with story.then("the model is put there"):
        eventually(waiting.node, equals(node))
    with story.then("a second GPU model of the same tenant is refused by its quota, though a GPU is free"):
        beyond = confirm(fleet.model("tenant-b", "second", gpus=1).created, refused(403, by="quota"))
        confirm(beyond, that("the GPU as its reason", lambda reply: f"requests.{GPU}=1" in reply.message))
    with story.then("another tenant gets the free one"):
        eventually(fleet.model("tenant-c", "first", gpus=1).node, equals(node))
