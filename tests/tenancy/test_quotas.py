"""Quotas: what a tenant may use in all, and what a pod gets that asks for nothing."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fixtures.scenario import scenario
from inferencebox.checks import answered, equals, refused, that
from inferencebox.probes.kubernetes import Kube, KubeReply
from inferencebox.waiting import confirm, eventually

Quantities = dict[str, str]
PodMaker = Callable[..., KubeReply]
PODS = 20


def says(text: str) -> Any:
    return that(f"the words {text!r}", lambda reply: text in reply.message)


@pytest.fixture
def new_pod(kube: Kube) -> Iterator[PodMaker]:
    """Makes pods, removed afterwards: `new_pod("tenant-c", requests={...}, limits={...}, dry_run=False)`."""
    made: list[tuple[str, str]] = []

    def make(namespace: str, dry_run: bool = False, **resources: Quantities) -> KubeReply:
        name = f"quota-{uuid.uuid4().hex[:8]}"
        container = {"name": "model", "image": "model", "resources": resources}
        # nothing of this is ever to run, wherever there are nodes
        spec = {"containers": [container], "nodeSelector": {"nowhere": "at-all"}, "terminationGracePeriodSeconds": 0}
        metadata = {"name": name, "namespace": namespace}
        reply = kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=dry_run)
        if reply.ok and not dry_run:
            made.append((namespace, name))
        return reply

    yield make
    for namespace, name in made:
        kube.delete("pod", name, namespace)


def _just(cpu: str = "10m", memory: str = "10Mi", cpu_limit: str = "10m", memory_limit: str = "10Mi") -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}}


@scenario("TEN-06", needs=("kubernetes.quota",), sabotage="quota.removed", seconds=4)
def test_a_tenant_cannot_use_more_than_its_quota(kube, new_pod, story):
    """A tenant gets 4 CPUs, 8 Gi (limits 8, 16 Gi) and 20 pods; what goes beyond is refused, and its peers are free."""
    namespace, peers = "tenant-c", ("tenant-a", "tenant-b")
    bounds = {
        "requests.cpu": (_just(cpu="4", cpu_limit="8"), _just(cpu="4001m", cpu_limit="8")),
        "requests.memory": (_just(memory="8Gi", memory_limit="16Gi"), _just(memory="8193Mi", memory_limit="16Gi")),
        "limits.cpu": (_just(cpu_limit="8"), _just(cpu_limit="8001m")),
        "limits.memory": (_just(memory_limit="16Gi"), _just(memory_limit="16385Mi")),
    }
    with story.given(f"{namespace} with no pods of this kind"):
        eventually(lambda: len(kube.list("pods", namespace).items), equals(0))
    for name, (most, too_much) in bounds.items():
        with story.then(f"a pod with all of {name} is admitted, one with a little more is refused by the quota"):
            eventually(lambda pod=most: new_pod(namespace, dry_run=True, **pod), answered(201), within=15)
            refusal = confirm(new_pod(namespace, **too_much), refused(403, by="quota"))
            confirm(refusal, says("exceeded quota") & says(name))
    with story.when(f"{namespace} has {PODS} pods"):
        for _ in range(PODS):
            confirm(new_pod(namespace, **_just()), answered(201))
    with story.then("one more is refused: exceeded quota"):
        refusal = confirm(new_pod(namespace, **_just()), refused(403, by="quota"))
        confirm(refusal, says("exceeded quota") & says("pods=1"))
    for peer in peers:
        with story.then(f"while {peer} gets the pod that {namespace} was refused"):
            confirm(new_pod(peer, **_just()), answered(201))


@scenario("TEN-07", needs=("kubernetes.quota",), sabotage="limit-range.removed", seconds=2)
def test_a_pod_that_asks_for_nothing_gets_the_usual(new_pod, story):
    """A tenant's pod that names no resources gets the tenant's defaults, so that the quota can count it."""
    usual = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}
    for tenant in ("tenant-a", "tenant-b"):
        with story.then(f"in {tenant} such a pod gets the defaults"):
            reply = confirm(new_pod(tenant), answered(201))
            confirm(_resources(reply), equals(usual))
        with story.then("and one that names some gets the others"):
            reply = confirm(new_pod(tenant, limits={"cpu": "250m"}), answered(201))
            mixed = {
                "requests": {"cpu": "250m", "memory": "128Mi"},
                "limits": {"cpu": "250m", "memory": "512Mi"},
            }
            confirm(_resources(reply), equals(mixed))
    with story.then("where no tenant is, a pod stays as it is"):
        confirm(_resources(confirm(new_pod("default"), answered(201))), equals({}))


def _resources(reply: KubeReply) -> dict[str, Any]:
    return reply.object["spec"]["containers"][0]["resources"]
