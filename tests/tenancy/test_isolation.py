"""Tenants side by side: names, routes and models of one are nothing to another."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest

from fixtures.models import Replica
from fixtures.scenario import scenario
from inferencebox import policies
from inferencebox.checks import answered, equals, length, refused, served_by
from inferencebox.platform import Platform, Workload, WorkloadSpec
from inferencebox.probes.kubernetes import Kube
from inferencebox.waiting import confirm, consistently, eventually


@dataclass(frozen=True)
class OpenService:
    """A Service that anybody who may refer to it would reach: nothing stands before its pod to refuse them."""

    namespace: str
    name: str
    replica: Replica

    @property
    def pods(self) -> list[Workload]:
        return [self.replica.workload]


@pytest.fixture
def open_service(platform: Platform, kube: Kube) -> Iterator[OpenService]:
    """A Service of tenant-a's, so that nothing but the reference decides who reaches it.

    Its pod has no sidecar, and is where no NetworkPolicy keeps tier 1 from it.
    """
    name = f"open-{uuid.uuid4().hex[:6]}"
    spec = WorkloadSpec("default", name, name, mesh=False, service_account="default")
    workloads = platform.add_workloads([spec])
    metadata = {"name": name, "namespace": "tenant-a"}
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "http", "port": 8080}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [workloads[0].address], "conditions": {"ready": True}}],
            "ports": [{"name": "http", "port": 8080}],
        },
    ]
    for reply in kube.apply(documents):
        reply.require()
    yield OpenService("tenant-a", name, Replica(platform, workloads[0]))
    kube.delete_all(documents)
    platform.remove_workloads(workloads)


@pytest.fixture
def intruding_route(kube: Kube, open_service: OpenService) -> Iterator[str]:
    """A route of tenant-b's with tenant-a's Service as its target; gives its host."""
    host = f"{open_service.name}.inference-in-a-box"
    target = {"kind": "Service", "name": open_service.name, "namespace": open_service.namespace, "port": 8080}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": open_service.name, "namespace": "tenant-b"},
        "spec": {
            "parentRefs": [{"name": policies.GATEWAY, "namespace": policies.GATEWAY_NAMESPACE}],
            "hostnames": [host],
            "rules": [{"backendRefs": [target]}],
        },
    }
    kube.apply(route)[0].require()
    yield host
    kube.delete_all(route)


@pytest.fixture
def grant(kube: Kube, open_service: OpenService) -> Iterator[dict[str, Any]]:
    """Tenant A's leave for tenant B's routes to use this one Service; not given yet."""
    document = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": open_service.name, "namespace": "tenant-a"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "tenant-b"}],
            "to": [{"group": "", "kind": "Service", "name": open_service.name}],
        },
    }
    yield document
    kube.delete_all(document)


@scenario("TEN-05", needs=("gateway.jwt", "mesh", "workloads"), sabotage="grants.any-service", seconds=6)
def test_a_route_cannot_reach_into_another_tenant(
    tenant_a, tenant_b, gateway, kube, open_service, intruding_route, grant, story
):
    """A route of tenant B's to a Service of tenant A's leads nowhere, unless tenant A says so."""
    ask = gateway.at(intruding_route).get("/v2/health/ready", tenant_b.token)
    with story.given("a route of B's with a Service of A's as its target, and B's genuine token"):
        eventually(ask.with_(token=None), refused(401, by="jwt", at="tier-1"))
    with story.then("the gateway answers itself, and never with A's Service"):
        seen = eventually(ask, refused(500, by="no-backend", at="tier-1"), streak=3)
        consistently(ask, refused(500, by="no-backend", at="tier-1"), seconds=1)
        confirm(open_service.replica.arrivals(path="/v2/health/ready", request_id=seen.request_id), length(equals(0)))
    with story("and says why: the reference is not permitted"):
        kube.wait_condition("httproute", open_service.name, "tenant-b", "ResolvedRefs", "False")
        route = kube.get("httproute", open_service.name, "tenant-b").require()
        conditions = route["status"]["parents"][0]["conditions"]
        confirm([each["reason"] for each in conditions if each["type"] == "ResolvedRefs"], equals(["RefNotPermitted"]))
    with story.when("A gives leave for this one Service"):
        kube.apply(grant)[0].require()
    with story.then("and only then, the same route leads there"):
        eventually(ask, answered(200) & served_by(open_service), streak=2)
    with story.when("A takes it back"):
        kube.delete_all(grant)
    with story.then("the way is closed again"):
        eventually(ask, refused(500, by="no-backend", at="tier-1"), streak=3)


@scenario(
    "TEN-09",
    needs=("gateway.jwt", "mesh", "workloads"),
    sabotage=("authz.any-tenant", "routes.misrouted"),
    seconds=20,
)
def test_the_same_model_name_in_every_tenant(tenants, gateway, own_model, story):
    """Three tenants have a model of the same name; each has a URL of its own, where no other tenant gets in."""
    name = f"shared-{uuid.uuid4().hex[:6]}"
    with story.given(f"a model {name} in each of the three tenants"):
        models = [own_model(tenant.name, name=name) for tenant in tenants]
    urls = [gateway.at(f"{tenant.name}.inference-in-a-box") for tenant in tenants]
    owned = list(zip(tenants, models, urls, strict=True))
    for tenant, model, url in owned:
        with story.then(f"{tenant}'s URL leads to {tenant}'s model, and so does the common one with its token"):
            eventually(url.predict(name, tenant.token), answered(200) & served_by(model), streak=3)
            eventually(gateway.predict(name, tenant.token), answered(200) & served_by(model), streak=3)
    for (owner, model, url), (other, *_) in permutations(owned, 2):
        with story.then(f"{other}'s token is refused at {owner}'s URL, and nothing reaches the model"):
            seen = confirm(url.predict(name, other.token)(), refused(403, by="rbac", at="tier-1"))
            confirm(model.arrivals(request_id=seen.request_id)(), equals(0))


@scenario(
    "TEN-14",
    needs=("gateway.jwt", "ai-gateway"),
    sabotage="bootstrap.tenant-b-has-a-model",
    exclusive=True,
    seconds=3,
)
def test_tenant_b_starts_without_a_model(platform, tenants, tenant_b, gateway, kube, story):
    """But for the models that the tests add, tenant B has none, while tenants A and C have theirs."""
    added = {each["model"] for each in policies.models("fixtures") if each["tenant"] == "tenant-b"}
    at_bootstrap = {tenant.model.name: tenant for tenant in tenants if tenant is not tenant_b}
    with story.given(f"the models that the tests add for B: {', '.join(sorted(added))}; they answer"):
        eventually(gateway.get(f"/v1/models/{tenant_b.model.name}", tenant_b.token), answered(200))
    with story.then("B has no other route, Service or replica of a model"):
        for kind in ("httproute", "aigatewayroute", "service", "virtualservice"):
            found = {_model_of(each) for each in kube.list(kind, "tenant-b").items}
            confirm(sorted(found - added), equals([]))
        running = {pod.app for pod in platform.workloads("tenant-b") if pod.app != tenant_b.client.app}
        confirm(sorted(running - added), equals([]))
    with story.then("its list of models has no other"):
        listed = confirm(gateway.get("/v1/models", tenant_b.token)(), answered(200)).json()["data"]
        confirm(sorted({each["id"] for each in listed} - added), equals([]))
    url = gateway.at("tenant-b.inference-in-a-box")
    for name, owner in at_bootstrap.items():
        with story.then(f"{owner} has {name}, and at B's URL there is no such model"):
            eventually(gateway.get(f"/v1/models/{name}", owner.token), answered(200) & served_by(owner.model))
            confirm(url.get(f"/v1/models/{name}", tenant_b.token)(), refused(404) & ~served_by(owner.model))


def _model_of(document: dict[str, Any]) -> str:
    """The model that a route or Service is for, by its label; without one, by its name."""
    metadata = document["metadata"]
    labels = metadata.get("labels") or {}
    return str(labels.get("model") or labels.get("app") or metadata["name"])
