"""What one tenant does to itself, its neighbours do not notice."""

from fixtures.gateway import Gateway
from fixtures.models import OwnModelFactory
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from fixtures.turns import Alone
from inferencebox.checks import Check, answered, from_version, refused, served_by, that
from inferencebox.errors import SetupProblem
from inferencebox.traffic import Stream, Window, stream
from inferencebox.waiting import Timeouts, eventually

WORK = ("x-stub-delay-ms", "50")
"""What a prediction of tenant C takes, so that the baseline is a model's time and not this machine's mood."""
WINDOW = 300
"""Requests that are compared: 15 s of them. What the platform does that often, reading all metrics, is in each."""
OVERLOAD = refused(503, by="overload", at="tier-1")


@scenario(
    "TEN-08",
    needs=("gateway", "gateway.breaker", "workloads"),
    sabotage=("breaker.off", "limits.tenants-share"),
    seconds=50,
)
def test_a_saturated_tenant_slows_nobody_else(
    own_model: OwnModelFactory,
    gateway: Gateway,
    tenant_a: Tenant,
    tenant_c: Tenant,
    alone: Alone,
    story: Story,
) -> None:
    """Tenant A's model is asked for more than it can do; tenant C sees no error and at most twice its usual p95."""
    busy, calm = own_model("tenant-a", {"v1": 1}), own_model("tenant-c", {"v1": 1})
    ask_a = gateway.predict(busy, tenant_a.token, timeout=40)
    ask_c = gateway.predict(calm, tenant_c.token, headers=[WORK])
    alone()

    with stream(ask_c, rate=20) as traffic:
        with story.given("tenant C's ordinary traffic"):
            baseline = traffic.collect(WINDOW)
            story.note("baseline", str(baseline))
        with story.given("a model of tenant A that takes half a minute"):
            (slow,) = busy.replicas
            slow.fault(delay_ms=30000)
            slow.reset()
        # what many requests cost a small machine is not tenant A's doing: they stay long, and then a few are enough
        allowed = answered(200) | OVERLOAD
        traffic.mark("crowd")
        with Stream(ask_a, rate=24, ok=allowed, threads=300, seconds=45) as crowd:
            with story.when("tenant A is asked 24 times a second, until its breaker lets nobody through"):
                eventually(lambda: crowd.samples, any_refused(), within=20)
                crowd.cease()
            words = "it is saturated, and asked still; tenant C's traffic goes on"
            with Stream(ask_a, rate=6, ok=allowed) as more, story.then(words):
                traffic.mark("saturated")
                traffic.collect(WINDOW)
                traffic.mark("calm again")
                peak = slow.concurrency()["peak"]
                assert peak >= 100, f"wanted many requests at once at tenant A's model, got {peak}"
        during = traffic.window("crowd", "calm again")
        slower = during.p95 > 2 * baseline.p95
        if slower and not during.errors:
            with story.given("a machine that is steady: with tenant A calm, tenant C is as fast as before"):
                require_steady(baseline, traffic.collect(WINDOW))
    with story("Tenant C had no error, and its 95th percentile at most doubled"):
        marks = [[second, name] for name, second in traffic.marks.items()]
        story.plot("Tenant C while tenant A is saturated", timeline(traffic.window(), marks))
        assert during.requests >= 0.75 * WINDOW, f"wanted enough requests to judge, got {during}"
        assert during.errors == 0, f"wanted no error for tenant C while A is saturated, got {during}"
        assert not slower, f"wanted p95 of at most twice {1000 * baseline.p95:.0f} ms, got {during}"
    with story("and tenant A was answered, or told that its model is overloaded"):
        wrong = [sample.reason for sample in (*crowd.samples, *more.samples) if not sample.ok]
        assert not wrong, f"wanted only 200, or 503 by overload, at the saturated model: {wrong[0]}"


@scenario(
    "TEN-10",
    needs=("mesh.traffic", "workloads"),
    sabotage=("weights.frozen", "limits.tenants-share"),
    seconds=15,
)
def test_changes_in_one_tenant_do_not_touch_another(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, tenant_c: Tenant, story: Story
) -> None:
    """Tenant A upgrades and then deletes its model, both tenants under load: C sees no error."""
    changing, steady = own_model("tenant-a", {"v1": 1}), own_model("tenant-c", {"v1": 1})
    ask_a = gateway.predict(changing, tenant_a.token)

    with stream(gateway.predict(steady, tenant_c.token), rate=20) as traffic:
        with story.given("tenant C under load"):
            traffic.collect(20)
            traffic.mark("upgrade")
        with stream(ask_a, rate=20):
            with story.when("tenant A, under as much load, moves all traffic to a second version of its model"):
                changing.add("v2")
                changing.weights({"v1": 0, "v2": 100})
                eventually(ask_a, answered(200) & from_version("v2"), streak=5)
                traffic.mark("upgraded")
            with story.when("and then deletes the model, routes, replicas and all"):
                traffic.mark("delete")
                changing.delete()
                gone = answered(404) & served_by("default-backend")
                eventually(ask_a, gone, streak=3, within=Timeouts.current().route)
                traffic.mark("deleted")
                traffic.collect(20)
    with story.then("none of tenant C's requests failed"):
        window = traffic.window("upgrade")
        marks = [[second, name] for name, second in traffic.marks.items()]
        story.plot("Tenant C while tenant A changes", timeline(traffic.window(), marks))
        assert window.errors == 0, f"wanted no error for tenant C while A changed its model, got {window}"


def require_steady(before: Window, after: Window) -> None:
    """Nothing can be said about a neighbour's influence where the usual latency is a matter of what else runs."""
    if after.errors == 0 and after.p95 > 2 * before.p95:
        what = f"with tenant A calm, tenant C's p95 was {1000 * before.p95:.0f} ms and then {1000 * after.p95:.0f} ms"
        raise SetupProblem(f"This machine is busy with something else: {what}", "run it when the machine is quiet")


def any_refused() -> Check:
    return that("a refusal by the breaker", lambda samples: any(sample.status == 503 for sample in samples))


def timeline(window: Window, marks: list[list[object]]) -> dict[str, object]:
    points = [[sample.start, 1000 * sample.seconds, sample.status] for sample in window.samples]
    return {"kind": "timeline", "points": points, "marks": marks}
