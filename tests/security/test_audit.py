"""Who did what: each request leaves one entry, without a secret, where nobody it concerns can change it."""

import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from fixtures.gateway import Gateway
from fixtures.limits import LimitedFactory, await_room_in_minute
from fixtures.network import enforces_network_policies
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.telemetry import VIEWERS, unreachable_from
from fixtures.tenants import Tenant
from inferencebox.checks import Check, answered, at_least, equals, length, refused, that, unreachable
from inferencebox.platform import Endpoint, Platform, Workload, WorkloadSpec
from inferencebox.probes.http import Call, Observation
from inferencebox.probes.kubernetes import Kube, service_account
from inferencebox.probes.loki import Line, Loki, lines_of
from inferencebox.waiting import Timeouts, consistently, eventually

RULE = '{log="audit"}'
A_YEAR = 8760
"""Hours."""


def audit_of(request_id: str) -> str:
    """LogQL: what the platform has noted of a request."""
    return f'{RULE} |= "{request_id}"'


def says(entry: Line) -> dict[str, Any]:
    """Who, what and with what outcome; when is not a matter of equality."""
    return {name: entry.fields.get(name) for name in ("tenant", "sub", "model", "method", "path", "status")}


@scenario(
    "SEC-33",
    needs=("loki", "gateway.jwt", "ratelimit", "models"),
    sabotage=("audit.collector-stopped", "audit.nobody-named"),
    seconds=25,
)
def test_every_answer_leaves_one_audit_entry(
    gateway: Gateway, limited: LimitedFactory, tenant_a: Tenant, tenant_b: Tenant, log_store: Loki, story: Story
) -> None:
    """A 200, a 401, a 403 and a 429 leave one audit entry each within 30 s: when, who, what, with what outcome."""
    model = tenant_a.model
    call = gateway.predict(model, tenant_a.token)
    pretending = (("x-jwt-tenant", "tenant-c"), ("x-jwt-sub", "somebody"), ("x-tenant", "tenant-c"))
    entrance = limited("strict", tenant_requests_per_minute=3)
    began = time.time()
    with story.when("a request is answered, one comes without a token, one with another tenant's, and one too many"):
        sent = {
            200: eventually(call, answered(200)),
            401: eventually(call.with_(token=None).adding(*pretending), refused(401, by="jwt")),
            403: eventually(call.with_(token=tenant_b.token), refused(403, by="rbac")),
            429: one_too_many(entrance, tenant_a),
        }
    callers = {200: tenant_a, 401: None, 403: tenant_b, 429: tenant_a}
    for status, seen in sent.items():
        caller = callers[status]
        who = "who it was" if caller else "nobody, whatever it calls itself"
        with story.then(f"the {status} has its entry, with {who}"):
            found = eventually(
                log_store.lines(audit_of(seen.request_id), since=began),
                length(equals(1)),
                within=Timeouts.current().audit,
            )
            assert says(found[0]) == {
                "tenant": caller.name if caller else None,
                "sub": caller.user if caller else None,
                "model": model.name,
                "method": "POST",
                "path": f"/v1/models/{model.name}:predict",
                "status": status,
            }, f"entry: {found[0].text}"
            assert began - 1 <= datetime.fromisoformat(found[0].fields["time"]).timestamp() <= time.time() + 1
    with story.then("and no second one comes"):
        ids = "|".join(seen.request_id for seen in sent.values())
        consistently(log_store.lines(f'{RULE} |~ "{ids}"', since=began), length(equals(len(sent))), seconds=3)


def one_too_many(entrance: Any, tenant: Tenant) -> Observation:
    """The first request that the limiter refuses."""
    await_room_in_minute(10)
    ask = entrance.gateway.predict(tenant.model, tenant.token)
    return eventually(ask, refused(429, by="ratelimit"), every=0.1)


@scenario(
    "SEC-34",
    needs=("loki", "gateway.jwt", "mesh.authz", "models", "workloads", "kubernetes.rbac"),
    sabotage=("audit.with-token", "audit.writable", "audit.retention-short"),
    seconds=20,
)
def test_the_audit_has_no_secret_and_nobody_can_change_it(
    gateway: Gateway, platform: Platform, kube: Kube, tenant_a: Tenant, neighbour: Workload, log_store: Loki,
    story: Story,
) -> None:  # fmt: skip
    """No token, key or body is in any log, a tenant can read its entries and change none, and they are kept a year."""
    began = time.time()
    key, canary = f"ibk_{uuid.uuid4().hex}", f"canary{uuid.uuid4().hex}"
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]], "remark": canary}
    path = f"/v1/models/{tenant_a.model.name}:predict?access_token={tenant_a.token}&api_key={key}"
    asking = gateway.call("POST", path, tenant_a.token, (("x-api-key", key), ("cookie", f"session={key}")), json=body)
    with story.when("a request carries a token, a key and a body, the token and the key in the address too"):
        seen = eventually(asking, answered(200))
    with story.then("it has its entry, and what each tier and the model wrote has come too"):
        entry = eventually(
            log_store.lines(audit_of(seen.request_id), since=began), length(equals(1)), within=Timeouts.current().audit
        )[0]
        tier_2 = f'{{log="access", source="tier-2"}} |= "{seen.request_id}"'
        passed = length(at_least(1))  # once for each of tier 2's listeners that it goes through
        eventually(log_store.lines(tier_2, since=began), passed, within=Timeouts.current().audit)
        said = f'{{log="model", tenant="tenant-a"}} |= "{tenant_a.model.name}:predict"'
        eventually(log_store.lines(said, since=began), length(at_least(1)), within=Timeouts.current().log_line)
    with story.then("in none of the logs is the token, the key or the body"):
        secrets = {"token": tenant_a.token.rsplit(".", 1)[1][:40], "key": key, "body": canary}
        for what, secret in secrets.items():
            leaks = log_store.lines(f'{{log=~".+"}} |= "{secret}"', since=began)
            assert consistently(leaks, length(equals(0)), seconds=2) == [], f"the {what} is in a log"

    door = gateway.at(VIEWERS)
    mine = f"/logs/loki/api/v1/query_range?query=%7Blog%3D%22audit%22%7D&limit=1000&start={began - 1:.0f}"
    with story.then("the tenant reads its entry"):
        reading = door.get(mine, tenant_a.token)
        eventually(reading, answered(200) & has_line(entry.text), within=Timeouts.current().audit, every=1)
    with story.then("but neither adds a line nor takes one away, at Loki's door or past it"):
        forged = {"streams": [{"stream": {"log": "audit"}, "values": [[f"{time.time_ns()}", canary]]}]}
        for method, where, content in (
            ("POST", "/logs/loki/api/v1/push", forged),
            ("POST", "/logs/otlp/v1/logs", {}),
            ("POST", "/logs/loki/api/v1/delete?query=%7Blog%3D%22audit%22%7D&start=0", None),
            ("GET", "/logs/loki/api/v1/delete", None),
            ("POST", "/logs/loki/api/v1/rules/mine", None),
            ("GET", "/logs/config", None),
        ):
            attempt = door.call(method, where, tenant_a.token, **({"json": content} if content is not None else {}))
            consistently(attempt, answered(403, 404, 405) & that("not by Loki", not_by_loki), seconds=0)
        unreachable_from(platform, tenant_a, 3100)
        by_sidecar = refused(403, by="rbac")
        kept_out = unreachable() if enforces_network_policies(platform) else by_sidecar
        consistently(pushing(forged).within(platform, tenant_a.client), kept_out, seconds=0)
    with story.then("nor does a pod of the mesh that no NetworkPolicy holds, for Loki's sidecar knows who may write"):
        eventually(pushing(forged).within(platform, neighbour), by_sidecar)
    with story.then("nor says through Kubernetes what is logged"):
        for account in (service_account(tenant_a.name, tenant_a.name), tenant_a.user):
            for kind, space in (("envoyproxies.gateway.envoyproxy.io", "ai-gateway"), ("configmaps", "monitoring")):
                assert not kube.acting_as(account).can_i("update", kind, space), f"{account} may change {kind}"
    with story.then("the entry is there as it was, alone"):
        found = log_store.lines(audit_of(seen.request_id), since=began)()
        assert [line.text for line in found] == [entry.text]
        assert not log_store.lines(f'{{log=~".+"}} |= "{canary}"', since=began)()
    with story("Audit entries are kept for a year, and nobody's deleting is obeyed"):
        kept = log_store.configuration()
        assert kept["compactor"]["retention_enabled"] is True
        for organisation in ("platform", "tenant-a"):
            limits = Loki(log_store.endpoint, organisation).limits()
            periods = {each["selector"]: hours(each["period"]) for each in limits["retention_stream"]}
            assert periods.get(RULE, 0) >= A_YEAR, f"{organisation}: {periods}"
            assert Loki(log_store.endpoint, organisation).forget(RULE) == 403, "Loki takes wishes to delete"


@pytest.fixture
def neighbour(platform: Platform) -> Iterator[Workload]:
    """A pod with an identity of the mesh, in a namespace without NetworkPolicies."""
    name = f"own-neighbour-{uuid.uuid4().hex[:4]}"
    (pod,) = platform.add_workloads([WorkloadSpec("default", name, name, program="client")])
    yield pod
    platform.remove_workloads([pod])


def pushing(lines: dict[str, Any]) -> Call:
    """Lines brought to Loki's Service, with no identity but the caller's own."""
    door = Endpoint("http", "loki.monitoring.svc.cluster.local", 3100)
    headers = (("x-scope-orgid", "tenant-a"),)
    return Call("POST", door, "/loki/api/v1/push", headers=headers, json=lines).called("a line brought to Loki")


def has_line(text: str) -> Check:
    return that("the entry", lambda seen: text in [line.text for line in lines_of(seen.json())])


def not_by_loki(seen: Observation) -> bool:
    """Loki's own refusals (405, 404 of its router) come through its sidecar with the time that it took."""
    return "x-envoy-upstream-service-time" not in seen.headers or seen.cause == "rbac"


def hours(duration: str) -> float:
    """A duration in Go's or Prometheus' words, of days and hours as Loki prints them (`1y`, `52w1d`, `8760h0m0s`)."""
    units = {"y": 8760.0, "w": 168.0, "d": 24.0, "h": 1.0, "m": 1 / 60, "s": 1 / 3600}
    total, number = 0.0, ""
    for letter in duration:
        if letter.isdigit():
            number += letter
        else:
            total, number = total + float(number) * units[letter], ""
    return total
