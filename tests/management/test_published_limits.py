"""How often published models and the management service itself may be called."""

import time
from functools import partial

import pytest

from fixtures.limits import await_room_in_minute
from fixtures.management import PLENTY
from fixtures.scenario import scenario
from inferencebox.checks import answered, attribute, equals, header, matches, refused, that
from inferencebox.traffic import burst
from inferencebox.waiting import Timeouts, confirm, eventually

LIMITED = refused(429, by="ratelimit", at="tier-1")
SPEND = 4
LIMITS = {
    "per minute": {"requestsPerMinute": SPEND, "requestsPerHour": 100_000},
    "per hour": {"requestsPerMinute": SPEND, "requestsPerHour": SPEND},
    "burst": {**PLENTY, "burstLimit": 2},
    "tokens": {**PLENTY, "tokensPerHour": 12},
}
TOLD = {
    "per minute": rf"\b{SPEND};w=60\b",
    "per hour": rf"\b{SPEND};w=3600\b",
    "burst": r"\b2;w=1\b",
    "tokens": r"\b12;w=3600\b",
}
"""How a refusal names its limit."""


@scenario(
    "MGT-17", needs=("management", "gateway", "models", "ratelimit", "ai-gateway"), sabotage="limits.published-lifted",
    seconds=75,
)  # fmt: skip
@pytest.mark.parametrize("which", LIMITS)
def test_each_limit_of_a_published_model_holds(which, publishing, story):
    """Requests per minute and per hour, bursts, and tokens of a language model: each, when spent, is a 429."""
    openai = which == "tokens"
    tenant, api = ("tenant-b", "openai") if openai else ("tenant-a", "kserve")
    found = publishing(tenant, api=api, rateLimiting=LIMITS[which], wait=which in ("burst", "tokens"))
    ask = found.chat(body={"max_tokens": 8}) if openai else found.ask()
    limited = LIMITED & header("x-ratelimit-limit", matches(TOLD[which]))
    if which == "burst":
        with story.then("of twelve at once some are refused, by this limit, and a second later one is answered"):
            both = that("answers and refusals", lambda window: set(window.by_status) == {"200", "429"})
            both &= attribute("errors", equals(0))
            twelve = partial(burst, ask, 12, parallel=12, ok=answered(200) | limited)
            window = eventually(twelve, both, within=Timeouts.current().route, every=2)
            assert int(window.by_status["200"]) <= 2 * LIMITS[which]["burstLimit"], str(window)
            eventually(ask, answered(200), within=5, every=1)
        return
    with story.when("what is allowed is spent"):
        if not openai:
            eventually(ask, answered(200), within=Timeouts.current().route)
        for _ in range(30):
            seen = ask()
            if seen.status != 200:
                break
    with story.then("the limiter refuses"):
        confirm(seen, limited)
    if which == "per hour":
        with story.then("and goes on in the next minute"):
            time.sleep(60 - time.time() % 60 + 1)  # the next minute is the subject: nothing tells of it but the clock
            confirm(ask(), limited)
    if which == "per minute":
        with story.then("and the next minute is open again"):
            eventually(ask, answered(200), within=Timeouts.current().limit_window, every=1)


@scenario("MGT-37", needs=("management",), sabotage="management.no-limits", seconds=20)
def test_a_user_has_a_hundred_calls_a_minute(management, story):
    """A user's 101st call of a minute is refused and told when to come back; others go on; ten a second are most."""
    user, other = management.user("tenant-a"), management.user("tenant-a")
    call = user.get("/api/tenant")
    with story.when("somebody sends twenty at once"):
        window = burst(other.get("/api/tenant"), 20, parallel=20)
    with story.then("ten in a second are answered, at most"):
        assert set(window.by_status) == {"200", "429"}, str(window)
    with story.when("somebody else sends a hundred and one in a minute, slowly enough"):
        await_room_in_minute(45)
        replies = []
        for _ in range(101):
            replies.append(call.with_(quiet=len(replies) > 2)())
            time.sleep(0.11)  # below ten a second, which is a limit of its own
    with story.then("a hundred are answered, and each says what is left, and until when"):
        assert [seen.status for seen in replies] == [200] * 100 + [429], [s.status for s in replies].count(200)
        seconds = that("seconds to the end of a minute", lambda text: text in {str(n) for n in range(1, 62)})
        told = header("x-ratelimit-limit", "100") & header("x-ratelimit-remaining", "0")
        told &= header("x-ratelimit-reset", seconds)
        confirm(replies[0], answered(200) & header("x-ratelimit-remaining", "99"))
        confirm(replies[99], answered(200) & told)
        confirm(replies[100], refused(429) & told & header("retry-after", seconds))
    with story.then("another user is not affected"):
        confirm(management.user("tenant-a").get("/api/tenant")(), answered(200))
