"""Tenants' namespaces as Kubernetes sees them: sidecars, and NetworkPolicies that let in and out what they list.

Where NetworkPolicies are judged, the pods have no sidecar: nothing but a NetworkPolicy decides about a connection.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest

from fixtures.scenario import scenario
from fixtures.services import COLD, SOON_IDLE
from inferencebox.checks import answered, at_most, body_text, contains, elapsed, equals, no_connection, that
from inferencebox.platform import Endpoint, Platform, Workload, WorkloadSpec
from inferencebox.probes.http import Call, CallWithin
from inferencebox.probes.kubernetes import Kube
from inferencebox.waiting import Timeouts, confirm, eventually

SERVER, CONTROL, SIDECAR_METRICS = 8080, 9999, 15090
PATH = "/v2/health/ready"
SIDECAR = "istio-proxy"
LABELS = {"istio-injection": "enabled"}


def blocked() -> object:
    """No connection, and known to be none within the time that is promised."""
    return no_connection("refused", "reset", "timeout") & elapsed(at_most(Timeouts.current().blocked + 1))


@dataclass(frozen=True)
class Bystander:
    """Two pods without sidecars: one answers anybody who gets through to it, from the other requests are sent."""

    platform: Platform
    answering: Workload
    asking: Workload

    def asks(self, other: "Bystander | Endpoint", path: str = PATH) -> CallWithin:
        """A probe: a request to another one, or to an address."""
        there = other if isinstance(other, Endpoint) else Endpoint("http", other.answering.address, SERVER)
        call = Call("GET", there, path, timeout=Timeouts.current().blocked, insecure=there.scheme == "https")
        return call.within(self.platform, self.asking)


Bystanders = Callable[..., dict[str, Bystander]]


@pytest.fixture
def bystanders(platform: Platform) -> Iterator[Bystanders]:
    """Makes one in each namespace named, all at the same time; removed afterwards."""
    made: list[Workload] = []

    def make(*namespaces: str) -> dict[str, Bystander]:
        name = f"by-{uuid.uuid4().hex[:6]}"
        specs = [
            WorkloadSpec(namespace, f"{name}-{program}", name, program=program, mesh=False)
            for namespace in namespaces
            for program in ("stub-model", "client")
        ]
        placed = platform.add_workloads(specs)
        made.extend(placed)
        pairs = zip(placed[::2], placed[1::2], strict=True)
        return {answering.namespace: Bystander(platform, answering, asking) for answering, asking in pairs}

    yield make
    platform.remove_workloads(made)


@scenario("TEN-01", needs=("pods", "mesh"), sabotage="injection.switched-off", seconds=8)
def test_each_tenant_has_its_namespace_and_a_sidecar_in_every_model_pod(kube, tenants, story):
    """Three namespaces with their labels; each pod of a model has its sidecar, and so does any pod that comes."""
    for tenant in tenants:
        with story.then(f"{tenant} has a namespace with its labels"):
            labels = kube.get("namespace", tenant.name).require()["metadata"]["labels"]
            wanted = LABELS | {"tenant": tenant.name}
            confirm({name: labels.get(name) for name in wanted}, equals(wanted))
        with story.then("every pod of its models has a sidecar that is ready"):
            eventually(partial(_sidecars, kube, tenant.name), EACH_READY)  # a pod may just be coming
        with story.then("and a pod that says nothing of it gets one (asked, not made)"):
            reply = kube.create(_plain_pod(tenant.name), dry_run=True)
            containers = confirm(reply, answered(201)).object["spec"]["containers"]
            confirm(sorted(each["name"] for each in containers), equals(["anything", SIDECAR]))
    with story.then("where no tenant is, a pod stays as it is"):
        containers = confirm(kube.create(_plain_pod("default"), dry_run=True), answered(201)).object["spec"][
            "containers"
        ]
        confirm([each["name"] for each in containers], equals(["anything"]))


def _sidecars(kube: Kube, namespace: str) -> dict[str, str]:
    """How the sidecar is of each pod of a model that is there to stay."""
    pods = kube.list("pods", namespace, "serving.kserve.io/inferenceservice").items
    return {pod["metadata"]["name"]: _sidecar(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]}


EACH_READY = that("a sidecar that is ready in each", lambda sidecars: set(sidecars.values()) == {"ready"})


def _plain_pod(namespace: str) -> dict[str, object]:
    metadata = {"name": f"plain-{uuid.uuid4().hex[:6]}", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "anything", "image": "anything"}]},
    }


def _sidecar(pod: Mapping[str, object]) -> str:
    """ready, not ready or none."""
    statuses = pod["status"].get("containerStatuses") or []
    found = next((each for each in statuses if each["name"] == SIDECAR), None)
    return "none" if found is None else "ready" if found["ready"] else "not ready"


@scenario("TEN-02", needs=("networkpolicy",), sabotage=("networkpolicy.removed", "networkpolicy.open"), seconds=25)
def test_nothing_gets_in_or_out_that_is_not_listed(bystanders, tenants, story):
    """Nobody from elsewhere connects to a tenant's pod, and a tenant's pod connects to nothing elsewhere."""
    with story.given("a pod that answers everybody in each tenant's namespace, and one elsewhere"):
        pods = bystanders(*(tenant.name for tenant in tenants), "default")
        elsewhere = pods.pop("default")
    api = Endpoint("https", "kubernetes.default.svc.cluster.local", 443)
    for name, inside in pods.items():
        with story.then(f"{name}: who is inside gets an answer from its pod, on each port"):
            eventually(inside.asks(inside), answered(200))
            eventually(inside.asks(Endpoint("http", inside.answering.address, CONTROL), "/health"), answered(200))
        with story.then("and who is elsewhere no connection, on no port"):
            for port in (SERVER, CONTROL):
                eventually(elsewhere.asks(Endpoint("http", inside.answering.address, port)), blocked(), streak=2)
        with story.then("elsewhere there is a pod that answers who is there, and so does the Kubernetes API"):
            eventually(elsewhere.asks(elsewhere), answered(200))
            eventually(elsewhere.asks(api, "/version"), answered(200, 401, 403))
        with story.then(f"and {name}'s pod gets no connection to either"):
            eventually(inside.asks(elsewhere), blocked(), streak=2)
            eventually(inside.asks(api, "/version"), blocked())


@scenario("TEN-03", needs=("networkpolicy",), sabotage=("networkpolicy.removed", "networkpolicy.open"), seconds=20)
def test_tenants_connect_within_and_never_across(bystanders, tenants, story):
    """Of all nine ways from a tenant's pod to a tenant's pod three lead there; six are blocked within 5 s."""
    with story.given("a pod that answers everybody in each tenant's namespace"):
        pods = bystanders(*(tenant.name for tenant in tenants))
    seen = {}
    for caller, called in product(pods, pods):
        way = pods[caller].asks(pods[called])
        if caller == called:
            with story.then(f"from {caller} to {called}: there is an answer"):
                seen[caller, called] = eventually(way, answered(200))
        else:
            with story.then(f"from {caller} to {called}: no connection, known within 5 s"):
                seen[caller, called] = eventually(way, blocked(), streak=2)
    table = [f"{caller} -> {called}: {reply} after {reply.elapsed:.2f} s" for (caller, called), reply in seen.items()]
    story.note("the matrix", "\n".join(table))


@scenario(
    "TEN-04",
    needs=("networkpolicy", "autoscaling", "mesh"),
    sabotage=("networkpolicy.activator-shut-out", "networkpolicy.dns-forgotten", "networkpolicy.monitoring-shut-out"),
    seconds=120,
)
def test_with_all_policies_on_the_platform_can_do_its_work(
    bystanders, own_service, gateway, tenant_a, platform, kube, story
):
    """With all policies in force a model still wakes up, is probed and scraped, and its pods find names."""
    with story.given("policies that are in force: nobody from elsewhere connects to a tenant's pod"):
        pods = bystanders(tenant_a.name, "default", "monitoring")
        inside, elsewhere, scraper = (pods[name] for name in (tenant_a.name, "default", "monitoring"))
        eventually(elsewhere.asks(inside), blocked(), streak=2)
    with story.then("a pod of a tenant's finds names"):
        service = Endpoint("http", tenant_a.model.service, SERVER)
        found = that("a name that is found", lambda seen: seen.error in (None, "reset", "refused"))
        confirm(inside.asks(service)(), found)
    with story.then("the monitoring may ask a sidecar how it does, and nobody else"):
        (pod, *_) = tenant_a.model.pods
        metrics = Endpoint("http", pod.address, SIDECAR_METRICS)
        told = answered(200) & body_text(contains("envoy_"))
        eventually(scraper.asks(metrics, "/stats/prometheus"), told)
        eventually(elsewhere.asks(metrics, "/stats/prometheus"), blocked())
    with story.then("the node's probes reach a tenant's pods: they stay ready, and none was started anew"):
        # a busy node's own probe may time out once; one that is kept out never comes through
        eventually(partial(_containers, kube, tenant_a.name), EACH_WELL, streak=5, every=1.0)
    with story.given("a model of the tenant's without pods"):
        model = own_service(tenant_a.name, annotations=SOON_IDLE)
        eventually(model.how_many, equals(0), within=Timeouts.current().scale_to_zero, every=1.0)
    with story.then("it wakes up when it is asked"):
        ask = gateway.predict(model, tenant_a.token).with_(timeout=COLD).called("the first request")
        confirm(ask(), answered(200) & elapsed(at_most(Timeouts.current().cold_start)))


def _containers(kube: Kube, namespace: str) -> dict[str, str]:
    """How each container is of the models that the tenant has from the start; first those that are not well."""
    pods = kube.list("pods", namespace, "serving.kserve.io/inferenceservice,inference-in-a-box/layer").items
    states = [(pod["metadata"]["name"], each) for pod in pods for each in pod["status"]["containerStatuses"]]
    found = {f"{name}/{each['name']}": _container(each) for name, each in states}
    return dict(sorted(found.items(), key=lambda item: item[1] == "ready"))


def _container(status: Mapping[str, object]) -> str:
    """ready, not ready or started anew."""
    return "started anew" if status["restartCount"] else "ready" if status["ready"] else "not ready"


EACH_WELL = that("containers, each ready and started once", lambda containers: set(containers.values()) == {"ready"})
