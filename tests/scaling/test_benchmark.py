"""How fast a model is, run after run."""

import pytest

from fixtures.options import reports_of
from fixtures.scenario import scenario
from inferencebox.benchmarks import History, Subject, regressions, typical
from inferencebox.checks import equals, that
from inferencebox.load import Load, load
from inferencebox.probes.http import Call
from inferencebox.traffic import burst
from inferencebox.waiting import confirm

USERS, SECONDS, ROUNDS = 4, 5.0, 3
WARM = 40


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """What was measured in runs whose reports went to the same folder."""
    return History(reports_of(request.config))


@scenario(
    "SCL-16",
    needs=("gateway", "models"),
    why_no_sabotage="the scenario slows the model's replies down itself, and that must be flagged",
    exclusive=True,
    seconds=60,
)
def test_a_model_is_as_fast_as_it_was(platform, tenant_a, gateway, history, story):
    """A model's p95 and throughput are measured and stored with the run; more than 25 % worse than before is told."""
    call = gateway.predict(tenant_a.model, tenant_a.token).called("a prediction")
    subject = Subject(platform.provider, platform.release, str(tenant_a.model), USERS)
    with story.given("a model that is warm"):
        confirm(burst(call, WARM, parallel=USERS).by_status, equals({"200": WARM}))
        before = history.of(subject)
        story.note("measured before", "\n".join(map(str, before)) or "never on this machine")
    with story.when(f"{USERS} users ask it, {ROUNDS} times {SECONDS:.0f} s; the median counts"):
        rounds, slow_rounds = in_turns(call)
        now, slow = typical(subject, rounds), typical(subject, slow_rounds)
        story.note("measured now", str(now))
    with story.then("that is stored for the runs to come"):
        history.add(now)
        confirm(history.of(subject)[-1], equals(now))
    with story.then("a model slowed down by a quarter more than its p95, asked in turns with it, would be flagged"):
        story.note("measured of the slowed down", str(slow))
        flagged = that("a regression that is told", lambda found: any("p95" in each for each in found))
        confirm(regressions(slow, [now]), flagged)
    with story.then("and so would one that kept each user waiting for twice as long: it gives half as much"):
        halved = typical(subject, [faultless(slowed(call, 2 * USERS / now.throughput))])
        story.note("measured of the one that gives half", str(halved))
        less = that("less throughput that is told", lambda found: any("replies a second" in each for each in found))
        confirm(regressions(halved, [now]), less)
    with story.then("and it is no more than 25 % worse than it was"):
        confirm(regressions(now, before), equals([]))


def in_turns(call: Call) -> tuple[list[Load], list[Load]]:
    """Rounds of the model as it is and slowed down, one after the other: what else the machine does meets both.

    So much slower that its p95 is more than 25 % worse whatever else it takes: asked less often, it also waits less.
    """
    plain: list[Load] = []
    delayed: list[Load] = []
    for _ in range(ROUNDS):
        plain.append(faultless(call))
        delayed.append(faultless(slowed(call, 1.25 * plain[-1].window.p95)))
    return plain, delayed


def slowed(call: Call, seconds: float) -> Call:
    """The same of a model that takes so much longer for each reply."""
    return call.adding(("x-stub-delay-ms", str(round(1000 * seconds)))).called("a prediction, slowed down")


def faultless(call: Call) -> Load:
    seen = load(call, USERS, SECONDS)
    confirm(seen.window.errors, equals(0))
    return seen
