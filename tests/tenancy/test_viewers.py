"""What a tenant's viewer sees of the platform's telemetry: its own, and nobody else's."""

import uuid
from urllib.parse import quote

from fixtures.gateway import Gateway
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import Check, answered, refused, that
from inferencebox.platform import Platform
from inferencebox.probes.http import Observation
from inferencebox.waiting import Timeouts, eventually


@scenario(
    "TEN-11",
    needs=("prometheus", "jaeger", "telemetry.tenants"),
    sabotage=("viewers.header-from-client", "viewers.jaeger-shared"),
    seconds=20,
)
def test_a_viewer_sees_its_own_tenants_telemetry_only(
    gateway: Gateway, secure_gateway: Gateway, platform: Platform, tenant_a: Tenant, tenant_b: Tenant, story: Story
) -> None:
    """Tenant B's viewer reads B's metrics and traces; A's are not there for it, however it asks."""
    door = gateway.at("observe.inference-in-a-box")
    trace = uuid.uuid4().hex
    parent = (("traceparent", f"00-{trace}-{uuid.uuid4().hex[:16]}-01"),)
    with story.given("requests of both tenants, tenant A's in a trace that is known"):
        eventually(gateway.predict(tenant_a.model, tenant_a.token, headers=parent), answered(200))
        body = {"instances": [[0.0] * 64]}
        eventually(gateway.predict(tenant_b.model, tenant_b.token, json=body), answered(200))

    everything = "/metrics/api/v1/query?query=ai_model_requests_total"
    with story.then("B's viewer sees B's series, all of B's models"):
        mine = door.get(everything, tenant_b.token)
        eventually(mine, answered(200) & tenants_are({"tenant-b"}), within=Timeouts.current().metric, every=1)
    with story.then("asking for A's by name, B's viewer is refused"):
        named = 'ai_model_requests_total{tenant="tenant-a"}'
        asked = door.get(f"/metrics/api/v1/query?query={quote(named)}", tenant_b.token)
        eventually(asked, answered(400) & that("a conflict with its own tenant", lambda seen: b"conflict" in seen.body))
    with story.then("nor does saying to be A, in the gateway's own header"):
        forged = mine.adding(("x-tenant", "tenant-a"))
        eventually(forged, answered(200) & tenants_are({"tenant-b"}), streak=3)
    with story.then("A's viewer sees A's trace, B's does not"):
        path = f"/traces/api/traces/{trace}"
        eventually(door.get(path, tenant_a.token), answered(200), within=Timeouts.current().trace, every=1)
        eventually(door.get(path, tenant_b.token), answered(404) & no_trace())
        eventually(
            door.get("/traces/api/services", tenant_b.token),
            answered(200) & that("services of tenant-b only", others_absent),
        )
    with story.then("without a token there is nothing to see"):
        eventually(door.get(everything), refused(401, by="jwt"))
    with story.then("and from a pod of A's there is no way past the gateway to B's traces or to all metrics"):
        for port in (9090, 8081, 16686, 16702):
            blocked(platform, tenant_a, port)
    if platform.capabilities.get("loki") or platform.capabilities.get("grafana"):
        reasons = [platform.capabilities.get(name) for name in ("loki", "grafana")]
        not_exercised(f"metrics and traces hold; logs and dashboards: {'; '.join(filter(None, reasons))}")


def blocked(platform: Platform, tenant: Tenant, port: int) -> None:
    """No connection from the tenant's pod to telemetry's is made: STRICT mutual TLS, and no identity that may."""
    parts = platform.workloads("monitoring")
    assert parts, "telemetry has no workload to ask"
    for part in parts:
        url = f"http://{part.address}:{port}/"
        done = platform.run_in(tenant.client, ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url])
        answer = f"port {port} of {part.name} answered {done.stdout.decode()} to a tenant's pod"
        assert done.returncode != 0, answer


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
