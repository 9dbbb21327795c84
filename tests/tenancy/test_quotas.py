"""Quotas: what a tenant may use in all, and what a pod gets that asks for nothing."""

import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from kubernetes.utils import parse_quantity

from fixtures.scenario import scenario
from inferencebox.checks import answered, equals, refused, that
from inferencebox.probes.kubernetes import Kube, KubeReply
from inferencebox.waiting import confirm, eventually

Quantities = dict[str, str]
PodMaker = Callable[..., KubeReply]
PROMISED = {
    "requests.cpu": 4,
    "requests.memory": 8 * 2**30,
    "limits.cpu": 8,
    "limits.memory": 16 * 2**30,
    "pods": 20,
}
LITTLE = {
    "requests.cpu": Decimal("0.001"),
    "requests.memory": Decimal(2**20),
    "limits.cpu": Decimal("0.001"),
    "limits.memory": Decimal(2**20),
}


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
        metadata = {"name": name, "namespace": namespace, "labels": {"sidecar.istio.io/inject": "false"}}
        reply = kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=dry_run)
        if reply.ok and not dry_run:
            made.append((namespace, name))
        return reply

    yield make
    for namespace, name in made:
        kube.delete("pod", name, namespace)


def _just(cpu: str = "10m", memory: str = "10Mi", cpu_limit: str = "10m", memory_limit: str = "10Mi") -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}}


def quota(kube: Kube, namespace: str) -> dict[str, dict[str, Decimal]]:
    """What the tenant may use in all (`hard`) and what it uses (`used`), as its quota counts it; none without one."""
    found = kube.list("resourcequota", namespace).items
    return {
        part: {name: parse_quantity(amount) for name, amount in found[0]["status"][part].items()} if found else {}
        for part in ("hard", "used")
    }


def left(kube: Kube, namespace: str, resource: str) -> Decimal:
    now = quota(kube, namespace)
    return now["hard"][resource] - now["used"][resource]


def asking_for(resource: str, amount: Decimal) -> dict[str, Any]:
    """Resources of a pod that wants so much of one, and of the others what goes with it."""
    kind, name = resource.split(".")
    parts = (f"{name}_limit",) if kind == "limits" else (name, f"{name}_limit")
    return _just(**dict.fromkeys(parts, str(amount)))


@scenario("TEN-06", needs=("kubernetes.quota",), sabotage="quota.removed", exclusive=True, seconds=4)
def test_a_tenant_cannot_use_more_than_its_quota(kube, new_pod, story):
    """A tenant gets 4 CPUs, 8 Gi (limits 8, 16 Gi) and 20 pods; what goes beyond is refused, and its peers are free."""
    namespace, peers = "tenant-c", ("tenant-a", "tenant-b")
    for tenant in (namespace, *peers):
        with story.given(f"{tenant}'s quota is what was promised, whatever its own pods use of it"):
            now = quota(kube, tenant)
            confirm({name: now["hard"].get(name) for name in PROMISED}, equals(PROMISED))
            story.note("used", ", ".join(f"{name} {amount}" for name, amount in now["used"].items()))
    for name in LITTLE:
        with story.then(f"a pod with all that is left of {name} is admitted, one with a little more is refused"):
            eventually(
                lambda name=name: new_pod(namespace, dry_run=True, **asking_for(name, left(kube, namespace, name))),
                answered(201),
                within=15,
            )
            too_much = left(kube, namespace, name) + LITTLE[name]
            refusal = confirm(new_pod(namespace, **asking_for(name, too_much)), refused(403, by="quota"))
            confirm(refusal, says("exceeded quota") & says(name))
    with story.when(f"{namespace} has as many pods as it may"):
        for _ in range(int(left(kube, namespace, "pods"))):
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
