"""Regions (GEO-01, GEO-02): requests stay in the region where they came in, and leave it only when it is down."""

import pytest

from fixtures.gateway import Gateway
from fixtures.models import OwnModel, OwnModelFactory, Replica
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import answered, served_by
from inferencebox.probes.http import Observation
from inferencebox.splits import judge_replies
from inferencebox.traffic import Stream
from inferencebox.waiting import Timeouts, eventually

NEEDS = ("gateway", "mesh.traffic", "mesh.locality", "models", "workloads")
EU, US = "eu/eu-2/eu-2a", "us/us-1/us-1a"
HEADER = "x-try"


@pytest.fixture
def spread(own_model: OwnModelFactory, tenant_b: Tenant) -> OwnModel:
    """A model with a replica in eu, where tier 2 is, and one in us."""
    return own_model(tenant_b.name, {"v1": 2}, localities=(EU, US))


def _in(model: OwnModel, region: str) -> Replica:
    return next(replica for replica in model.replicas if replica.workload.locality.startswith(region))


@scenario("GEO-01", needs=NEEDS, sabotage="locality.ignored", seconds=12)
def test_requests_of_a_region_are_served_in_it(
    spread: OwnModel, gateway: Gateway, tenant_b: Tenant, story: Story
) -> None:
    """Requests that come in through the gateway in eu are served by the replica in eu, at least 95 % of them.

    A share of 95 % or less passes with a probability of at most 1e-3, one of 98 % or more is called wrong with at most
    1e-3: some 230 replies.
    """
    with story.given("a replica in eu and one in us, both well: a version that is in us only is served from there"):
        eu, us = _in(spread, "eu"), _in(spread, "us")
        (elsewhere,) = spread.add("v2", locality=US)
        spread.weights({"v1": 100, "v2": 0}, pinned={(HEADER, "us"): "v2"})
    call = gateway.predict(spread, tenant_b.token).called("a prediction")
    with story.given("us can be reached from the gateway"):
        eventually(call.adding((HEADER, "us")), answered(200) & served_by(elsewhere.workload), streak=3)
    with story.when("clients ask the gateway in eu"):
        regions = {replica.workload.name: replica.workload.locality.partition("/")[0] for replica in (eu, us)}
        verdict = judge_replies(call, {"eu": 0.98, "us": 0.02}, 0.03, arm=lambda seen: _region(seen, regions))
        story.plot("which region replied", verdict.plot)
    with story.then("eu serves at least 95 % of them"):
        assert verdict.ok, verdict.reason


@scenario("GEO-02", needs=(*NEEDS, "outages"), sabotage="locality.no-failover", seconds=25)
def test_another_region_serves_while_the_own_one_is_down(
    spread: OwnModel, gateway: Gateway, tenant_b: Tenant, story: Story
) -> None:
    """When eu goes down us serves, without a failed request, and once eu has recovered it serves again."""
    eu, us = _in(spread, "eu"), _in(spread, "us")
    call = gateway.predict(spread, tenant_b.token, timeout=30).called("a prediction")
    with Stream(call, rate=20) as stream:
        with story.given("eu serves its own"):
            eventually(call, answered(200) & served_by(eu.workload), streak=10)
        with story.when("eu goes down"):
            stream.mark("eu down")
            eu.stop()
        with story.then("us serves"):
            eventually(call, answered(200) & served_by(us.workload), streak=10)
            stream.mark("us serves")
        with story.when("eu is back"):
            eu.start()
            stream.mark("eu up")
        with story.then("eu serves again"):
            back = answered(200) & served_by(eu.workload)
            eventually(call, back, streak=10, within=Timeouts.current().ready)
            stream.mark("eu serves")
    window = stream.window()
    story.plot("requests across the outage", stream.plot())
    with story.then("and no client saw an error"):
        story.note("error window", f"{window.error_window_ms:.0f} ms of {window.requests} requests")
        assert window.errors == 0, f"wanted no error across the outage, got {window}"


def _region(seen: Observation, regions: dict[str, str]) -> str:
    return regions.get(seen.pod or "", str(seen)) if seen.status == 200 else str(seen)
