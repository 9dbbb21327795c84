"""Tenants among each other, and the ways around the first gateway: to tier 2 itself, from pod to pod, to the tokens."""

import base64
import uuid
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fixtures.gateway import Gateway
from fixtures.network import enforces_network_policies
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import (
    answered,
    body_json,
    equals,
    no_connection,
    present,
    refused,
    served_by,
    that,
    unreachable,
)
from inferencebox.identity import DemoTokens
from inferencebox.platform import Endpoint, Platform, Workload, WorkloadSpec
from inferencebox.probes.http import Call
from inferencebox.probes.kubernetes import Kube
from inferencebox.waiting import consistently, eventually

NOT_YOURS = refused(403, by="rbac", at="tier-1")


@scenario("SEC-08", needs=("gateway.jwt", "models"), sabotage="authz.any-tenant", seconds=2)
def test_a_token_opens_only_its_own_tenant(gateway: Gateway, tenants: tuple[Tenant, ...], story: Story) -> None:
    """A tenant's genuine token is refused at each other tenant's model, by that door's policy, and nothing gets in."""
    with story.given("every token is genuine: it opens its own tenant's model"):
        for tenant in tenants:
            own = gateway.get(f"/v1/models/{tenant.model.name}", tenant.token).called(f"{tenant} reads its model")
            reply = eventually(own, answered(200) & served_by(tenant.model), streak=2)
            assert tenant.model.reached_by([reply]), f"{tenant.model} does not count what it answers"
    refusals = {tenant.name: [] for tenant in tenants}
    for caller, owner in permutations(tenants, 2):
        with story.when(f"{caller} asks {owner}'s model"):
            for call in (
                gateway.predict(owner.model, caller.token).called(f"{caller} asks {owner.model}"),
                gateway.get(f"/v1/models/{owner.model.name}", caller.token).called(f"{caller} reads {owner.model}"),
            ):
                refusals[owner.name].append(consistently(call, NOT_YOURS, seconds=0))
    with story.then("no model saw a request of another tenant"):
        for tenant in tenants:
            assert not (arrived := tenant.model.reached_by(refusals[tenant.name])), f"it got through: {arrived[0]}"


@pytest.fixture
def tier_1_identity(kube: Kube, tmp_path: Path) -> Path:
    """Tier 1's own certificate and key, as somebody would have them who got hold of its Secret."""
    data = kube.get("secret", "tier1-client", "ai-gateway").require()["data"]
    file = tmp_path / "tier-1.pem"
    file.touch(mode=0o600)
    file.write_bytes(base64.b64decode(data["tls.crt"]) + base64.b64decode(data["tls.key"]))
    return file


@scenario("SEC-11", needs=("mesh.authz", "models"), sabotage=("tier-2.open", "authz.tier-2.any-tenant"), seconds=2)
def test_nobody_gets_past_tier_1(
    platform: Platform, tenant_a: Tenant, tenant_b: Tenant, tier_1_identity: Path, story: Story
) -> None:
    """Straight to tier 2, headers that name the tenant open nothing; nor does tier 1's certificate without a token."""
    spoofed = (("x-jwt-tenant", "tenant-a"), ("x-jwt-sub", "user-a"), ("x-tenant", "tenant-a"))
    path = f"/v1/models/{tenant_a.model.name}"
    plain = Call("GET", platform.endpoint("tier2-http"), path, host=tenant_a.model.predictor)
    secure = plain.with_(endpoint=platform.endpoint("tier2"), sni=tenant_a.model.predictor, insecure=True, fresh=True)
    as_tier_1 = secure.with_(identity=tier_1_identity)
    refused_here = refused(403, by="rbac", at="tier-2")
    seen = []
    with story.given("this is the door that tier 1 uses: with its certificate and A's token A's model answers"):
        good = eventually(as_tier_1.with_(token=tenant_a.token), answered(200) & served_by(tenant_a.model))
        assert tenant_a.model.reached_by([good]), f"{tenant_a.model} does not count what it answers"
    with story.when("somebody asks tier 2 in plain HTTP: without a token, with spoofed headers, even with A's token"):
        for call in (plain, plain.with_(headers=spoofed), plain.with_(headers=spoofed, token=tenant_a.token)):
            seen.append(consistently(call, refused_here, seconds=0))
    with story.when("somebody asks its TLS port without tier 1's certificate: there is no connection"):
        for call in (secure.with_(headers=spoofed), secure.with_(token=tenant_a.token)):
            seen.append(consistently(call, no_connection("tls", "reset", "closed"), seconds=0))
    with story.when("somebody has stolen tier 1's certificate, but has no token of A's"):
        for call in (
            as_tier_1,
            as_tier_1.with_(headers=spoofed),
            as_tier_1.with_(headers=spoofed, token=tenant_b.token),
        ):
            seen.append(consistently(call, refused_here, seconds=0))
    with story.then("none of it reached the model"):
        assert not (arrived := tenant_a.model.reached_by(seen)), f"it got past tier 2: {arrived[0]}"


@pytest.fixture
def let_in(platform: Platform, kube: Kube, tenant_a: Tenant) -> Iterator[Workload]:
    """A pod of B's that no NetworkPolicy keeps from A's model: only the mesh's own rules are left."""
    name = f"let-in-{uuid.uuid4().hex[:6]}"
    caller = {"podSelector": {"matchLabels": {"app": name}}}
    out = {**caller, "policyTypes": ["Egress"], "egress": [{"to": [_in_namespace("tenant-a")]}]}
    into = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [_in_namespace("tenant-b") | caller]}]}
    documents = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        for namespace, spec in (("tenant-b", out), ("tenant-a", into))
    ]
    for reply in kube.apply(documents):
        reply.require()
    spec = WorkloadSpec("tenant-b", name, name, program="client", service_account="client")
    workloads = platform.add_workloads([spec])
    yield workloads[0]
    platform.remove_workloads(workloads)
    kube.delete_all(documents)


def _in_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


@scenario(
    "SEC-12",
    needs=("mesh.authz", "mesh.mtls", "models"),
    sabotage=("authz.sidecar.removed", "mtls.permissive"),
    seconds=3,
)
def test_a_neighbours_pod_gets_nowhere(
    platform: Platform, tenant_a: Tenant, tenant_b: Tenant, let_in: Workload, story: Story
) -> None:
    """From a pod of B nothing answers in A: not the Service, not the pod, not the port of its queue-proxy.

    Where NetworkPolicies are enforced they cut off B's pods. So everything is asked again from one that they let in.
    """
    path = f"/v1/models/{tenant_a.model.name}"
    spoofed = (("x-jwt-tenant", "tenant-a"), ("x-jwt-sub", "user-a"), ("x-tenant", "tenant-a"))
    service = Call("GET", Endpoint("http", tenant_a.model.service, 80), path, headers=spoofed, timeout=5)
    pod = tenant_a.model.pods[0]
    seen = []
    with story.given("A's own pod is answered by A's model, and B's own pod by B's"):
        own = eventually(
            service.with_(headers=()).within(platform, tenant_a.client), answered(200) & served_by(tenant_a.model)
        )
        assert tenant_a.model.reached_by([own]), f"{tenant_a.model} does not count what it answers"
        b_own = Call("GET", Endpoint("http", tenant_b.model.service, 80), f"/v1/models/{tenant_b.model.name}")
        eventually(b_own.within(platform, tenant_b.client), answered(200) & served_by(tenant_b.model))
    ways = {
        "B's pod": (tenant_b.client, unreachable() if enforces_network_policies(platform) else None),
        "a pod of B's that NetworkPolicies let in": (let_in, None),
    }
    for who, (caller, kept_out) in ways.items():
        with story.when(f"{who} asks A's Service, with headers and even a token that say it is A"):
            for token, cause in ((None, "rbac"), (tenant_a.token, "rbac"), (tenant_b.token, "audience")):
                from_b = service.with_(token=token).called(f"{who} asks A's Service").within(platform, caller)
                wanted = kept_out or refused(403, by=cause)
                seen.append(eventually(from_b, wanted))
                seen.append(consistently(from_b, wanted, seconds=0))
        with story.when(f"{who} asks A's pod by its address, at the model's port and at those of a queue-proxy"):
            for port in (8080, 8012, 8112, 9091):
                straight = service.with_(endpoint=Endpoint("http", pod.address, port)).called(f"A's pod, port {port}")
                seen.append(consistently(straight.within(platform, caller), unreachable(), seconds=0))
    with story.then("none of it reached the model"):
        assert not (arrived := tenant_a.model.reached_by(seen)), f"it got through: {arrived[0]}"


JWKS = "/.well-known/jwks.json"
SPELLINGS = (
    "/tokens",
    "/tokens/",
    "/TOKENS",
    "//tokens",
    "/%74okens",
    "/x/../tokens",
    "/tokens?tenant=a",
    "/v1/../tokens",
)
HOSTS = ("localhost", "api.router.inference-in-a-box", "tenant-a.inference-in-a-box", "jwt-server.inference-in-a-box")
JWT_SERVER = "jwt-server.default.svc.cluster.local"


@scenario("SEC-19", needs=("gateway.jwt", "mesh"), sabotage="jwt-server.tokens-routed", seconds=4)
def test_demo_tokens_are_for_the_administrator_only(
    platform: Platform,
    gateway: Gateway,
    secure_gateway: Gateway,
    tenants: tuple[Tenant, ...],
    outsider: Workload,
    tier_1_identity: Path,
    story: Story,
) -> None:
    """Demo tokens are had by port-forward alone: through no gateway and from no pod, though its public keys are.

    Where NetworkPolicies are enforced a tenant's pods have no connection to the JWT server at all; istiod gives their
    sidecars its keys.
    """
    not_there = answered(403, 404) & that("no token in it", lambda seen: b"eyJ" not in seen.body)
    at_tier_1 = not_there & that("tier 1's own refusal: it asked nobody", lambda seen: seen.tier == "tier-1")
    with story.given("the administrator's port-forward gives the tokens"):
        assert set(DemoTokens(platform.endpoint("jwt-server")).all()) == {tenant.name for tenant in tenants}
    with story.when("somebody asks tier 1 for them, with a token or without, however it is written: it asks nobody"):
        for host in (*HOSTS, JWT_SERVER, f"{JWT_SERVER}:8080"):
            for path in SPELLINGS if host == HOSTS[0] else SPELLINGS[:1]:
                for token in (None, tenants[0].token):
                    call = gateway.at(host).get(path, token).called(f"{path} at {host}")
                    assert not (why := at_tier_1(call())), f"{call}: {why}"
        over_tls = secure_gateway.get("/tokens", tenants[0].token, ca=platform.edge_ca, sni="localhost")
        assert not (why := at_tier_1(over_tls())), f"over TLS: {why}"
    with story.when("somebody asks tier 2 for them, even with tier 1's certificate"):
        at_tier_2 = Call("GET", platform.endpoint("tier2-http"), "/tokens", host=f"{JWT_SERVER}:8080")
        secure = at_tier_2.with_(endpoint=platform.endpoint("tier2"), sni=JWT_SERVER, insecure=True, fresh=True)
        for call in (at_tier_2, secure.with_(identity=tier_1_identity, token=tenants[0].token)):
            assert not (why := not_there(call())), f"tier 2: {why}"
    with story.when("pods of every tenant, and one outside the mesh, ask the JWT server itself"):
        keys = Call("GET", Endpoint("http", JWT_SERVER, 8080), JWKS)
        asked = keys.with_(path="/tokens")
        public, hidden = (
            answered(200) & body_json("keys", present()),
            answered(404) & body_json("error", equals("not found")),
        )
        for pod in (*(tenant.client for tenant in tenants), outsider):
            kept_out = pod is not outsider and enforces_network_policies(platform)
            eventually(keys.within(platform, pod), unreachable() if kept_out else public)
            for call in (asked, asked.adding(("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"))):
                check = unreachable() if kept_out else hidden & not_there
                assert not (why := check(call.within(platform, pod)())), f"{pod.namespace}/{pod.name}: {why}"
