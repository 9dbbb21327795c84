"""What a tenant's viewer sees of the platform's telemetry: its own, and nobody else's."""

import time
import uuid
from collections.abc import Set
from urllib.parse import quote

from fixtures.gateway import Gateway
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.telemetry import VIEWERS, own_prediction, unreachable_from
from fixtures.tenants import Tenant
from inferencebox.checks import Check, answered, refused, that
from inferencebox.platform import Platform
from inferencebox.probes.http import Observation
from inferencebox.probes.loki import lines_of
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

DASHBOARDS = "grafana.inference-in-a-box"


@scenario(
    "TEN-11",
    needs=("prometheus", "jaeger", "telemetry.tenants"),
    wants=("loki",),
    sabotage=("viewers.header-from-client", "viewers.jaeger-shared", "viewers.logs-shared", "grafana.anonymous"),
    seconds=25,
)
def test_a_viewer_sees_its_own_tenants_telemetry_only(
    gateway: Gateway, secure_gateway: Gateway, platform: Platform, tenant_a: Tenant, tenant_b: Tenant, story: Story
) -> None:
    """Tenant B's viewer reads B's metrics, traces and logs; A's are not there for it, however it asks."""
    door = gateway.at(VIEWERS)
    trace = uuid.uuid4().hex
    parent = (("traceparent", f"00-{trace}-{uuid.uuid4().hex[:16]}-01"),)
    began = time.time()
    with story.given("requests of both tenants, tenant A's in a trace that is known"):
        eventually(gateway.predict(tenant_a.model, tenant_a.token, headers=parent), answered(200))
        eventually(own_prediction(gateway, tenant_b), answered(200))

    everything = "/metrics/api/v1/query?query=ai_model_requests_total"
    with story.then("B's viewer sees B's series, all of B's models"):
        mine = door.get(everything, tenant_b.token)
        eventually(mine, answered(200) & tenants_are({"tenant-b"}), within=Timeouts.current().metric, every=1)
    with story.then("asking for A's by name, B's viewer is refused"):
        named = 'ai_model_requests_total{tenant="tenant-a"}'
        asked = door.get(f"/metrics/api/v1/query?query={quote(named)}", tenant_b.token)
        confirm(asked(), answered(400) & that("a conflict with its own tenant", lambda seen: b"conflict" in seen.body))
    with story.then("nor does saying to be A, in the gateway's own header"):
        forged = mine.adding(("x-tenant", "tenant-a"))
        eventually(forged, answered(200) & tenants_are({"tenant-b"}), streak=3)
    with story.then("A's viewer sees A's trace, B's does not"):
        path = f"/traces/api/traces/{trace}"
        eventually(door.get(path, tenant_a.token), answered(200), within=Timeouts.current().trace, every=1)
        eventually(
            door.get("/traces/api/services", tenant_b.token),
            answered(200) & that("services of tenant-b only", others_absent),
        )
        consistently(door.get(path, tenant_b.token), answered(404) & no_trace(), seconds=1)
    missing = {name: why for name in ("loki", "grafana") if (why := platform.capabilities.get(name))}
    if "loki" not in missing:
        sees_own_lines_only(door, tenant_a, tenant_b, began, story)
    ports = [9090, 8081, 16686, 16702, 3100]
    if "grafana" not in missing:
        ports.append(3000)
        with story.then("the dashboards show every tenant's data: with B's token alone Grafana shows nothing of them"):
            everybodys = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=ai_model_requests_total"
            eventually(gateway.at(DASHBOARDS).get(everybodys, tenant_b.token), refused(401, at="tier-2"), streak=3)
        missing["grafana"] = "a tenant has no dashboards of its own yet: Grafana is for the platform's own people"
    with story.then("without a token there is nothing to see"):
        confirm(door.get(everything)(), refused(401, by="jwt"))
    with story.then("and from a pod of A's there is no way past the gateway to B's traces, all metrics or all logs"):
        for port in ports:
            unreachable_from(platform, tenant_a, port)
    if missing:
        rest = "; ".join(f"{name}: {why}" for name, why in missing.items())
        not_exercised(f"metrics and traces{'' if 'loki' in missing else ' and logs'} hold; the rest: {rest}")


def sees_own_lines_only(door: Gateway, tenant_a: Tenant, tenant_b: Tenant, began: float, story: Story) -> None:
    """Loki, by way of the gateway."""
    reading = f"/logs/loki/api/v1/query_range?limit=1000&start={began - 1:.0f}&query="
    lines = reading + quote('{log=~".+"}')
    with story.then("B's viewer sees B's log lines, of what was asked and of what the model said, and A's sees A's"):
        for tenant in (tenant_b, tenant_a):
            seen_there = answered(200) & lines_are_of(tenant.name, kinds={"audit", "model"})
            eventually(door.get(lines, tenant.token), seen_there, within=Timeouts.current().log_line, every=1)
    with story.then("asking for A's lines by name finds none, nor does saying to be A, the gateway's way or Loki's"):
        named = reading + quote('{tenant="tenant-a"}')
        eventually(door.get(named, tenant_b.token), answered(200) & no_lines(), streak=2)
        for organisation in ("tenant-a", "platform", "tenant-b|tenant-a"):
            forged = door.get(lines, tenant_b.token, (("x-tenant", "tenant-a"), ("x-scope-orgid", organisation)))
            eventually(forged, answered(200) & lines_are_of("tenant-b"), streak=2)
    with story.then("and without a token there are no lines"):
        confirm(door.get(lines)(), refused(401, by="jwt"))


def lines_are_of(tenant: str, kinds: Set[str] = frozenset()) -> Check:
    """There are lines, all of this tenant, among them some of each of these kinds."""

    def of(seen: Observation) -> bool:
        labels = [line.labels for line in lines_of(seen.json())]
        return {each.get("tenant") for each in labels} == {tenant} and kinds <= {each["log"] for each in labels}

    return that(f"lines of {tenant}{' of kinds ' if kinds else ''}{', '.join(sorted(kinds))}", of)


def no_lines() -> Check:
    return that("no lines", lambda seen: lines_of(seen.json()) == [])


def others_absent(seen: Observation) -> bool:
    services = seen.json().get("data") or []
    return bool(services) and not any("tenant-a" in name or "tenant-c" in name for name in services)


def tenants_are(wanted: set[str]) -> Check:
    """The series of a Prometheus answer are of these tenants, each of at least one."""

    def of(seen: Observation) -> bool:
        return {each["metric"].get("tenant", "") for each in seen.json()["data"]["result"]} == wanted

    return that(f"series of {', '.join(sorted(wanted)) or 'nobody'}", of)


def no_trace() -> Check:
    return that("no such trace", lambda seen: b"trace not found" in seen.body)
