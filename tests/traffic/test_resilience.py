"""Resilience of SPEC 1.5: breaker, ejection, retries, timeout, crashes, restarts of what steers the platform."""

import time
from itertools import pairwise
from statistics import fmean

import pytest

from fixtures.gateway import Gateway
from fixtures.models import OwnModel, OwnModelFactory, Replica
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from fixtures.turns import Alone
from inferencebox.checks import (
    Check,
    answered,
    at_least,
    between,
    elapsed,
    equals,
    from_version,
    header,
    refused,
    that,
)
from inferencebox.platform import Platform
from inferencebox.traffic import Window, burst, stream
from inferencebox.waiting import Timeouts, eventually

BREAKER = 200
"""SPEC 1.5: so many requests in parallel reach an upstream, no more."""
ATTEMPTS = 4
"""SPEC 1.5: three retries."""
SEVERAL = 12


def points(window: Window) -> list[list[float | int | None]]:
    """For a timeline: when each request was sent, how long it took, how it ended."""
    return [[sample.start, 1000 * sample.seconds, sample.status] for sample in window.samples]


@scenario("TRF-20", needs=("gateway", "gateway.breaker", "workloads"), sabotage="breaker.off", seconds=15)
def test_an_overloaded_backend_is_protected(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, alone: Alone, story: Story
) -> None:
    """More than a slow backend may be given is refused at once with 503 overload; the backend never sees above 200."""
    model = own_model("tenant-a", {"v1": 1})
    (replica,) = model.replicas
    # as patient as the entrance: how long a busy machine takes for 200 slow requests is not the subject
    ask = gateway.predict(model, tenant_a.token, timeout=Timeouts.current().request)
    refusal = refused(503, by="overload", at="tier-1") & header("x-envoy-overloaded", "true")

    with story.given("a backend that takes five seconds for each request, so that all clients are there at once"):
        replica.fault(delay_ms=5000)
        replica.reset()
    alone()  # who asks something else meanwhile waits for seconds
    with story.when("300 clients ask at the same moment"):
        crowd = burst(ask, 300, parallel=300, ok=answered(200) | refusal)
        story.plot("300 at once", {"kind": "timeline", "points": points(crowd)})
    with story.then("each is either served or told that there is an overload, and nothing else"):
        assert crowd.errors == 0, f"wanted only 200, or 503 by overload at tier-1: {crowd}"
        counts = crowd.by_status
        assert counts.get("200", 0) >= 50, f"wanted the backend to go on serving, got {crowd}"
        assert counts.get("503", 0) > 0, (
            f"wanted some of the {crowd.requests} to be refused by the breaker, got {crowd}"
        )
    with story("The backend saw many at once, but never more than the breaker's 200"):
        eventually(lambda: replica.concurrency()["peak"], between(50, BREAKER), within=0)
    with story("Ten seconds after the overload everything is served again"):
        replica.heal()
        eventually(ask, answered(200), streak=10, within=Timeouts.current().overload_recovery, every=0.05)


@scenario("TRF-21", needs=("mesh.traffic", "workloads"), sabotage="outlier-detection.off", seconds=15)
def test_a_failing_replica_is_ejected(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A replica that answers with errors gets no more traffic, and clients hardly notice."""
    model = own_model("tenant-a", {"v1": 3})
    sick, *others = model.replicas
    ask = gateway.predict(model, tenant_a.token)

    with stream(ask, rate=30) as traffic:
        with story.given("three replicas that share the traffic"):
            eventually(lambda: [len(each.arrivals()) for each in model.replicas], every_at_least(3), within=10)
        with story.when("one of them answers 503 to everything"):
            sick.fault(status=503)
            traffic.mark("sick")
        with story.then("within seconds it gets no traffic at all"):
            eventually(lambda: arrivals_during(sick, 1.5), equals(0), within=15)
            traffic.mark("ejected")
            before = [len(each.arrivals()) for each in others]
            traffic.collect(30)
        with story("which the others have instead"):
            gained = [len(each.arrivals()) - had for each, had in zip(others, before, strict=True)]
            assert min(gained) > 0, f"wanted both others to serve, got {gained} requests"
    with story("At least 99 % of all requests succeeded"):
        window = traffic.window("sick")
        marks = [[second, name] for name, second in traffic.marks.items()]
        story.plot(
            "One of three replicas fails", {"kind": "timeline", "points": points(traffic.window()), "marks": marks}
        )
        assert window.error_rate <= 0.01, f"wanted at most 1 % errors, got {window}"


@scenario("TRF-22", needs=("gateway", "gateway.retries", "workloads"), sabotage="retries.off", seconds=8)
def test_a_passing_failure_is_retried(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A backend that fails twice and then answers: the client gets the answer, after exactly three attempts."""
    model = own_model("tenant-a", {"v1": 1})
    ask = gateway.predict(model, tenant_a.token)

    with story.given("a request that its model answers at once arrives once"):
        seen = eventually(ask, answered(200), within=0)
        assert attempts(model, seen.request_id) == 1, "wanted one attempt for a request that succeeds"
    with story.when("the model fails the first two attempts of a request"):
        seen = eventually(ask.adding(("x-stub-fail-n", "2")), answered(200), within=0)
    with story.then("the client gets its answer, and the model saw three attempts of the same request"):
        number = attempts(model, seen.request_id)
        assert number == 3, f"wanted exactly 3 attempts, got {number}"


@scenario("TRF-23", needs=("gateway", "gateway.retries", "workloads"), sabotage=("retries.off", "retries.doubled"))
def test_retries_end_and_keep_their_distance(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A request that always fails is tried four times in all, at growing distances; the client's own mistake once."""
    model = own_model("tenant-a", {"v1": 1})
    failing = gateway.predict(model, tenant_a.token, headers=[("x-stub-status", "503")])

    with story.when(f"the model answers 503 whenever it is asked, for {SEVERAL} requests"):
        ids = [eventually(failing, answered(503), within=0).request_id for _ in range(SEVERAL)]
    with story.then("each was tried exactly four times: the second gateway adds no tries of its own"):
        tries = [attempts(model, request_id) for request_id in ids]
        assert tries == [ATTEMPTS] * SEVERAL, f"wanted {ATTEMPTS} attempts of each request, got {tries}"
    with story("with growing gaps, on average, since each is drawn at random from a growing range"):
        gaps = [fmean(gap) for gap in zip(*(gaps_of(model, request_id) for request_id in ids), strict=True)]
        story.note("mean gaps", ", ".join(f"{1000 * gap:.0f} ms" for gap in gaps))
        assert gaps[0] < gaps[1] < gaps[2], f"wanted growing gaps between attempts, got {gaps} s on average"
    with story("A 400 is not tried again"):
        seen = eventually(gateway.predict(model, tenant_a.token, headers=[("x-stub-status", "400")]), answered(400))
        number = attempts(model, seen.request_id)
        assert number == 1, f"wanted one attempt of a request that is wrong itself, got {number}"


@scenario("TRF-24", needs=("gateway", "workloads"), sabotage="timeout.longer", seconds=65)
def test_a_request_has_sixty_seconds(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A backend that takes 61 seconds: the client gets 504 after 60, from the gateway that the limit belongs to."""
    model = own_model("tenant-a", {"v1": 1})
    ask = gateway.predict(model, tenant_a.token, timeout=90)

    with story.given("a backend that takes a second: slow, and answered"):
        eventually(ask.adding(("x-stub-delay-ms", "1000")), answered(200) & elapsed(at_least(1)), within=0)
    with story.when("the backend takes 61 seconds"):
        seen = ask.adding(("x-stub-delay-ms", "61000"))()
    with story.then("the client is told 504 by the first gateway at 60 seconds"):
        in_time = refused(504, by="timeout", at="tier-1") & elapsed(between(59.5, 60.9))
        eventually(lambda: seen, in_time, within=0)
    with story("and it was asked once: there is no time for another attempt"):
        number = attempts(model, seen.request_id)
        assert number == 1, f"wanted one attempt, got {number}"


@scenario(
    "TRF-25",
    needs=("gateway", "gateway.retries", "mesh.traffic", "workloads", "outages"),
    sabotage="retries.off",
    seconds=20,
)
def test_killed_replicas_are_hardly_noticed(
    own_model: OwnModelFactory, gateway: Gateway, platform: Platform, tenant_a: Tenant, story: Story
) -> None:
    """Model replicas are killed under load: at most 1 % errors, and all of them serve again within two minutes."""
    model = own_model("tenant-a", {"v1": 3})
    victims = model.replicas[:2]
    ask = gateway.predict(model, tenant_a.token)

    with stream(ask, rate=30) as traffic:
        with story.given("three replicas under load"):
            traffic.collect(60)
        with story.when("one after the other two of them are killed, process and sidecar"):
            traffic.mark("first killed")
            kill(platform, victims[0])
            traffic.collect(45)
            traffic.mark("second killed")
            kill(platform, victims[1])
            traffic.collect(45)
        with story.then("all three serve again within two minutes"):
            began = time.monotonic()
            pods = sorted(replica.workload.name for replica in model.replicas)
            eventually(
                lambda: sorted(traffic.collect(45).by_pod), equals(pods), within=Timeouts.current().crash_recovery
            )
            recovered = traffic.mark("recovered")
            story.note("recovered", f"after {time.monotonic() - began:.1f} s more")
    with story("At most 1 % of the requests failed"):
        window = traffic.window("first killed")
        marks = [[second, name] for name, second in traffic.marks.items()]
        errors = [[sample.start, sample.end, ""] for sample in window.failed]
        data = {"kind": "timeline", "points": points(traffic.window()), "marks": marks, "windows": errors}
        story.plot("Two of three replicas killed", data)
        story.note("error window", f"{window.error_window_ms:.0f} ms; recovered at {recovered:.1f} s")
        assert window.error_rate <= 0.01, f"wanted at most 1 % errors while replicas were killed, got {window}"


PARTS = {
    "istiod": "",
    "envoy-gateway": "gateway.survives-controller",
    "ai-gateway-controller": "",
    "ratelimit": "",
    "activator": "autoscaling",
}
"""What steers the gateways, and what the platform must be able to show of it in particular."""


@scenario(
    "TRF-27",
    needs=("gateway", "mesh", "ratelimit", "outages"),
    sabotage=("weights.frozen", "limiter.fails-closed"),
    seconds=10,
)
@pytest.mark.parametrize("part", PARTS)
def test_restarts_of_the_controllers_are_not_noticed(
    part: str,
    own_model: OwnModelFactory,
    gateway: Gateway,
    platform: Platform,
    tenant_a: Tenant,
    alone: Alone,
    story: Story,
) -> None:
    """What steers the gateways is killed and comes back: not one request fails, and changes take effect again."""
    if (needed := PARTS[part]) and (why := platform.capabilities.get(needed, "not offered")):
        not_exercised(why)
    model = own_model("tenant-a", {"v1": 1, "v2": 1})
    ask = gateway.predict(model, tenant_a.token)
    alone()

    with stream(ask, rate=20) as traffic, stream(gateway.predict(tenant_a.model, tenant_a.token), rate=5) as standing:
        with story.given("warm traffic to a new model and to one that was there before"):
            traffic.collect(20)
        with story.when(f"{part} is killed"):
            before = pid_of(platform, part)
            traffic.mark("killed")
            platform.kill(part)
        with story.then("another process takes its place"):
            eventually(lambda: pid_of(platform, part), another_than(before), within=Timeouts.current().ready)
            traffic.mark("restarted")
            traffic.collect(40)
        with story("and a change of shares reaches the proxies"):
            model.weights({"v1": 0, "v2": 100})
            eventually(ask, answered(200) & from_version("v2"), streak=5, within=Timeouts.current().converge)
            traffic.mark("steered")
    with story("No request failed, from before the kill until after the change"):
        window = traffic.window()
        marks = [[second, name] for name, second in traffic.marks.items()]
        story.plot(f"{part} restarts", {"kind": "timeline", "points": points(window), "marks": marks})
        for seen in (window, standing.window()):
            assert seen.errors == 0, f"wanted no failed request while {part} restarted, got {seen}"


def pid_of(platform: Platform, part: str) -> int | None:
    """The process of a component while it runs."""
    return next((each.pid for each in platform.components() if each.name == part and each.state == "running"), None)


def another_than(pid: int | None) -> Check:
    return that("another process", lambda now: now not in (None, 0, pid))


def kill(platform: Platform, replica: Replica) -> None:
    """End a replica at once: its process and its sidecar."""
    mine = [each.name for each in platform.components() if replica.workload.name in each.name]
    assert mine, f"no process of {replica.workload.name} is known to the platform"
    for name in mine:
        platform.kill(name)


def arrivals_during(replica: Replica, seconds: float) -> int:
    """How many requests reached it in the last seconds."""
    return len(replica.arrivals(since=time.time() - seconds))


def every_at_least(number: int) -> Check:
    return that(f"each at least {number}", lambda counts: min(counts) >= number)


def attempts(model: OwnModel, request_id: str) -> int:
    return model.arrivals(request_id=request_id)()


def gaps_of(model: OwnModel, request_id: str) -> list[float]:
    """Seconds between the attempts of one request, as the model saw them."""
    times = sorted(each["at"] for replica in model.replicas for each in replica.arrivals(request_id=request_id))
    return [later - earlier for earlier, later in pairwise(times)]
