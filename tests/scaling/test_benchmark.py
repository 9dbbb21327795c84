"""How fast a model is, run after run."""

import pytest

from fixtures.options import reports_of
from fixtures.scenario import scenario
from inferencebox.benchmarks import Benchmark, History, Subject, best_of, regressions
from inferencebox.checks import equals, that
from inferencebox.load import load
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
    seconds=40,
)
def test_a_model_is_as_fast_as_it_was(platform, tenant_a, gateway, history, story):
    """A model's p95 and throughput are measured and stored with the run; more than 25 % worse than before is told."""
    call = gateway.predict(tenant_a.model, tenant_a.token).called("a prediction")
    subject = Subject(platform.provider, platform.release, str(tenant_a.model), USERS)
    with story.given("a model that is warm"):
        confirm(burst(call, WARM, parallel=USERS).by_status, equals({"200": WARM}))
        before = history.of(subject)
        story.note("measured before", "\n".join(map(str, before)) or "never on this machine")
    with story.when(f"{USERS} users ask it, {ROUNDS} times {SECONDS:.0f} s; the best round counts"):
        now = measured(subject, call)
        story.note("measured now", str(now))
    with story.then("that is stored for the runs to come"):
        history.add(now)
        confirm(history.of(subject)[-1], equals(now))
    with story.then("a model that takes half as long again, and 5 ms, would be flagged"):
        delay = round(1000 * now.p95 / 2) + 5
        slow = measured(subject, call.adding(("x-stub-delay-ms", str(delay))).called("a prediction, slowed down"))
        flagged = that("a regression that is told", lambda found: any("p95" in each for each in found))
        confirm(regressions(slow, [now]), flagged)
    with story.then("and it is no more than 25 % worse than it was"):
        confirm(regressions(now, before), equals([]))


def measured(subject: Subject, call: Call) -> Benchmark:
    rounds = [load(call, USERS, SECONDS) for _ in range(ROUNDS)]
    for each in rounds:
        confirm(each.window.errors, equals(0))
    return best_of(subject, rounds)
