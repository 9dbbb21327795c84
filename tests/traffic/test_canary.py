"""Canary releases (TRF-30 to TRF-33): shares of traffic by weight, promotion, rollback, a canary that is not ready.

Shares are judged by a sequential test with error rates of 1e-3 both ways (`inferencebox.splits`), on replies that came
through both gateways with a genuine token; the arm is the version that the replying replica names.
"""

from collections.abc import Callable
from functools import partial

import pytest

from fixtures.gateway import Gateway
from fixtures.models import OwnModel, OwnModelFactory, Replica
from fixtures.scenario import scenario
from fixtures.services import OwnServiceFactory, Released, ReleasedFactory, in_two_versions
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import at_least, at_most, equals, from_version, length, refused
from inferencebox.probes.http import Call
from inferencebox.splits import judge_replies
from inferencebox.traffic import Stream, Window, burst
from inferencebox.waiting import Timeouts, confirm, eventually

NEEDS = ("gateway", "mesh.traffic", "models", "workloads")
AT_MOST_ASKED = 8000
LATELY = 30
"""Replies by which it is seen that a change has arrived."""
TRY = "x-try"


@pytest.fixture
def releasing(released: ReleasedFactory, tenant_c: Tenant) -> OwnModel | Released:
    """A model of tenant C with an old version that serves, and a new one beside it without a share."""
    return released(tenant_c.name)


@scenario("TRF-30", needs=NEEDS, sabotage="weights.swapped", seconds=20)
def test_a_canary_gets_the_share_it_was_given(
    released: ReleasedFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A canary of 10 % gets 10 % of the requests, and the old version the rest, counted at the replicas that reply.

    Tolerated are 7 to 13 %: a share off by 3 points (or more) passes with a probability of at most 1e-3, a right one is
    called wrong with at most 1e-3. That takes 2000 replies on average; 8000 without a decision are a failure.
    """
    with story.given("an old and a new version of a model, and a share of 10 % for the new one"):
        model = released(tenant_a.name)
        model.weights({"v1": 90, "v2": 10})
    call = gateway.predict(model, tenant_a.token).called("a prediction")
    with story.given("the change has reached the gateway: the canary answers"):
        eventually(call.with_(quiet=True), from_version("v2"), every=0.01)
    with story.when("clients ask through both gateways"):
        for replica in model.replicas:
            replica.reset()
        verdict = judge_replies(call, {"v1": 0.9, "v2": 0.1}, delta=0.03, cap=AT_MOST_ASKED)
        story.plot("who replied", verdict.plot)
    with story.then("the canary had between 7 and 13 %"):
        assert verdict.ok, verdict.reason
    with story.then("and its replica counted as many requests as it was credited with"):
        arrived = sum(len(replica.arrivals(path="/v1/models/")) for replica in model.replicas_of("v2"))
        beyond = arrived - verdict.counts["v2"]  # asked already when the verdict was clear
        assert 0 <= beyond <= 8, f"wanted {verdict.counts['v2']} arrivals (and at most 8 more) at v2, got {arrived}"
    with story.then("which is what the platform's own route says: 90 and 10"):
        confirm(model.weights_now(), equals({"v1": 90, "v2": 10}))


@scenario("TRF-31", needs=NEEDS, sabotage="weights.frozen", seconds=20)
def test_promotion_moves_the_traffic_step_by_step_without_an_error(
    releasing: OwnModel | Released, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """A canary promoted to 50 %, then 100 %, gets these shares, no request fails, and at 100 % the old version is out.

    Half is judged to within 10 points, all to within 3: error rates 1e-3, so some 500 and 230 replies.
    """
    call = gateway.predict(releasing, tenant_c.token).called("a prediction")
    with Stream(call, rate=20) as stream:
        with story.given("clients ask steadily while the canary has 10 %"):
            releasing.weights({"v1": 90, "v2": 10})
            eventually(_lately(stream, "v2"), at_least(1))
        with story.when("it is promoted to 50 %"):
            stream.mark("50 %")
            releasing.weights({"v1": 50, "v2": 50})
            eventually(_lately(stream, "v2"), at_least(12))  # by chance at 10 %: 2e-5
        with story.then("half of the replies come from it"):
            half = judge_replies(call, {"v1": 0.5, "v2": 0.5}, delta=0.1, cap=AT_MOST_ASKED)
            story.plot("at 50 %", half.plot)
            assert half.ok, half.reason
        with story.when("it is promoted to 100 %"):
            stream.mark("100 %")
            releasing.weights({"v1": 0, "v2": 100})
            eventually(_lately(stream, "v2"), equals(LATELY))
            stream.mark("converged")
        with story.then("not one reply comes from the old version any more"):
            whole = judge_replies(call, {"v2": 1.0}, delta=0.03, cap=AT_MOST_ASKED)
            assert whole.ok, whole.reason
            assert stream.window("converged").by_version.keys() == {"v2"}, stream.window("converged").by_version
    with story.then("and no request failed across the changes"):
        story.plot("requests across both promotions", stream.plot())
        _assert_unbroken(stream.window())


@scenario("TRF-32", needs=NEEDS, sabotage="weights.frozen", seconds=10)
def test_rollback_returns_everybody_to_the_old_version(
    releasing: OwnModel | Released, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """After a rollback everybody is back on the old version within 30 s, and no request fails meanwhile."""
    call = gateway.predict(releasing, tenant_c.token).called("a prediction")
    with Stream(call, rate=40) as stream:
        with story.given("half of the traffic is on the new version"):
            releasing.weights({"v1": 50, "v2": 50})
            eventually(_lately(stream, "v2"), at_least(1))
            half = judge_replies(call, {"v1": 0.5, "v2": 0.5}, delta=0.2, cap=AT_MOST_ASKED)
            assert half.ok, half.reason
        with story.when("the release is rolled back"):
            rolled_back = stream.mark("rollback")
            releasing.weights({"v1": 100, "v2": 0})
            eventually(_lately(stream, "v1"), equals(LATELY), within=Timeouts.current().rollback)
            stream.mark("back")
        with story.then("not one reply comes from the new version any more"):
            whole = judge_replies(call, {"v1": 1.0}, delta=0.03, cap=AT_MOST_ASKED)
            assert whole.ok, whole.reason
        window = stream.window("rollback")
        story.plot("requests across the rollback", stream.plot())
    with story.then("that took less than 30 s"):
        last = max((sample.start for sample in window.samples if sample.version == "v2"), default=rolled_back)
        story.note("last request that met the new version", f"{1000 * (last - rolled_back):.0f} ms after the rollback")
        slow = at_most(Timeouts.current().rollback)(last - rolled_back)
        assert slow is None, f"the new version still replied late after the rollback: {slow} s"
    with story.then("and no request failed: the error window is 0 ms"):
        story.note("error window", f"{window.error_window_ms:.0f} ms of {window.requests} requests")
        _assert_unbroken(stream.window())


def a_broken_replica(own_model: OwnModelFactory, gateway: Gateway, tenant: Tenant, story: Story) -> None:
    """It was ready; its readiness check fails, and it would answer if it were asked. Tier 2 has nowhere to send the
    canary's share of 3 % and says so; tier 1 tries again up to three times, so a client sees an error with a
    probability of 0.03 ** 4 per request: 2.4e-4 over the 300 here.
    """
    with story.given("a canary beside the version that serves; whoever asks for it gets it"):
        model = own_model(tenant.name, {"v1": 1, "v2": 1}, readiness=True)
        (canary,) = model.replicas_of("v2")
        model.weights({"v1": 100, "v2": 0}, pinned={(TRY, "early"): "v2"})
        call = gateway.predict(model, tenant.token).called("a prediction")
        eventually(call.adding((TRY, "early")).called("a prediction by the canary"), from_version("v2"), streak=2)
    with story.when("its readiness check fails, and it is given 3 % of the traffic all the same"):
        canary.fault(ready=0)
        model.weights({"v1": 97, "v2": 3}, pinned={(TRY, "late"): "v2"})
        asked_for = call.adding((TRY, "late")).called("a prediction by the broken canary")
        eventually(asked_for, refused(503, by="no-healthy-upstream", at="tier-2"), streak=2)
        canary.reset()
    _nobody_meets(canary, {"v1"}, call, story)
    with story.then("once it is ready it can be had again"):
        canary.heal()
        eventually(asked_for, from_version("v2"), streak=2)


def a_broken_revision(own_service: OwnServiceFactory, gateway: Gateway, tenant: Tenant, story: Story) -> None:
    """It never gets ready: its readiness check asks for what is not there. It would answer if it were asked. KServe
    keeps its share with the newest version that is ready.
    """
    with story.given("a model that serves, and a canary of it that has no share yet"):
        model = in_two_versions(own_service(tenant.name, min_replicas=1, max_replicas=1))
    call = gateway.predict(model, tenant.token).called("a prediction")
    with story.when("a broken one is released in the canary's place, with half of the traffic"):
        model.release("v3", 50, readinessProbe={"httpGet": {"path": "/not-there", "port": 8080}, "periodSeconds": 1})
        eventually(lambda: len(model.replicas_of("v3")), equals(1), within=Timeouts.current().first_ready)
        (broken,) = model.replicas_of("v3")
        eventually(broken.answers, equals(True), within=Timeouts.current().first_ready)
        eventually(partial(broken.arrivals, path="/not-there"), length(at_least(5)))
    _nobody_meets(broken, {"v1", "v2"}, call, story)
    with story.when("one that works is released, with half of the traffic"):
        model.release("v4", 50, readinessProbe={"httpGet": {"path": "/v2/health/ready", "port": 8080}})
    with story.then("it gets requests"):
        eventually(call, from_version("v4"), within=Timeouts.current().first_ready)


@scenario("TRF-33", needs=NEEDS, sabotage="readiness.ignored", seconds=40)
def test_a_canary_that_does_not_get_ready_gets_no_traffic(
    has_kserve: bool,
    own_model: OwnModelFactory,
    own_service: OwnServiceFactory,
    gateway: Gateway,
    tenant_c: Tenant,
    story: Story,
) -> None:
    """A broken canary, one that is not ready, gets not one request, and the old version serves everybody."""
    if has_kserve:
        a_broken_revision(own_service, gateway, tenant_c, story)
    else:
        a_broken_replica(own_model, gateway, tenant_c, story)


def _nobody_meets(broken: Replica, wanted: set[str], call: Call, story: Story) -> None:
    window = burst(call, 300, parallel=4)
    with story.then(f"{' or '.join(sorted(wanted))} answered every request"):
        assert window.errors == 0, f"wanted 300 answers, got {window}"
        assert window.by_version.keys() <= wanted, f"wanted {wanted} only, got {window.by_version}"
    with story.then("and not one reached the canary"):
        arrived = broken.arrivals(path="/v1/models/")
        assert not arrived, f"wanted no request at the canary, got {len(arrived)}"


def _lately(stream: Stream, version: str) -> Callable[[], int]:
    """How many of the last replies came from a version: those of clients who ask all the time, however slow each is."""
    return lambda: sum(sample.version == version for sample in stream.samples[-LATELY:])


def _assert_unbroken(window: Window) -> None:
    assert window.errors == 0, f"wanted no error across the change, got {window}"
