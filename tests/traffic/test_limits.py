"""Limits of SPEC 1.5: per tenant, per JWT, for everybody, and of tokens. Each test has buckets of its own."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.gateway import Gateway
from fixtures.limits import LimitedFactory, await_room_in_minute, in_one_minute, route_at
from fixtures.models import OwnModelFactory
from fixtures.options import stays
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from fixtures.turns import Alone
from inferencebox import policies
from inferencebox.checks import Check, answered, header, matches, refused, served_by, that
from inferencebox.identity import SigningKey, token
from inferencebox.platform import Platform
from inferencebox.probes.http import Call, Observation
from inferencebox.traffic import Window, burst, stream
from inferencebox.waiting import Timeouts, confirm, eventually

LIMITED = refused(429, by="ratelimit", at="tier-1")
TOLD = (
    header("x-envoy-ratelimited", "true")
    & header("x-ratelimit-remaining", "0")
    & header("x-ratelimit-reset", matches(r"^\d+$"))
)
NEEDS = ("gateway", "ratelimit", "models")
WINDOWS = {"tenant_requests_per_minute": 60, "jwt_requests_per_minute": 60, "requests_per_hour": 3600}
"""Each limit that a KServe request meets, and its window in seconds."""


@pytest.fixture
def possible_limits(request: pytest.FixtureRequest) -> Sequence[str]:
    """The set of limits that this run asked for; either, of a platform that may have been up before it."""
    return ("strict", "demo") if stays(request.config) else (request.config.getoption("--limits"),)


def each(calls: Sequence[Call], check: Check) -> list[Observation]:
    """Sends each once; each must be as wanted."""
    return [eventually(call, check, within=0) for call in calls]


def remaining(seen: Observation) -> int:
    """What is left of the tightest limit."""
    return int(seen.headers["x-ratelimit-remaining"])


@scenario(
    "TRF-10",
    needs=NEEDS,
    sabotage=("limits.tenant-lifted", "limits.one-bucket", "limits.by-client-header"),
    seconds=70,
)
def test_a_tenant_has_its_hundred_requests_a_minute(
    limited: LimitedFactory, tenant_a: Tenant, tenant_c: Tenant, story: Story
) -> None:
    """A tenant's 101st request of a minute is refused with 429; other tenants go on; the next minute is open again."""
    entrance = limited("strict")
    plain = entrance.gateway.predict(tenant_a.model, tenant_a.token)
    other = entrance.gateway.predict(tenant_c.model, tenant_c.token, json=tenant_input(tenant_c))

    def a_hundred_and_one() -> tuple[str, Window, Observation]:
        probe = f"trf-10-{uuid.uuid4().hex}"
        ask = plain.adding(("x-probe", probe))
        return probe, burst(ask, 100, parallel=4), ask.called("the 101st request")()

    with story.when("tenant A sends its hundred requests and one more, all in one minute"):
        probe, hundred, one_more = in_one_minute(a_hundred_and_one, seconds=10)
        began = time.monotonic()
        spent = [[sample.end, 1000 * sample.seconds, sample.status] for sample in hundred.samples]
    with story.then("each of the hundred is answered"):
        assert hundred.errors == 0, f"of the hundred that are promised not all were answered: {hundred}"
    with story("The 101st is refused by the limiter, with the limit, what is left and when it ends"):
        confirm(one_more, LIMITED & TOLD & header("x-ratelimit-limit", matches(r"^100, 100;w=60\b")))
        left = int(one_more.headers["x-ratelimit-reset"])
        assert 0 <= left <= 60, f"wanted the end of a minute in x-ratelimit-reset, got {left} s"
    with story("and A's model has seen a hundred, no more"):
        arrivals = tenant_a.model.arrivals(probe=probe)()
        assert arrivals == 100, f"wanted 100 requests at the model, got {arrivals}"
    with story("Tenant C is not affected"):
        each([other, other], answered(200))
    with story("When the minute is over tenant A is answered again, and not before"):
        eventually(plain, answered(200), within=Timeouts.current().limit_window, every=1)
        waited = time.monotonic() - began
        assert waited >= left - 2, f"answered {waited:.1f} s after a refusal that said {left} s"
        story.plot(
            "A hundred requests, and the next minute",
            {
                "kind": "timeline",
                "points": [*spent, [spent[-1][0] + 0.1, 1, 429], [spent[-1][0] + waited, 10, 200]],
                "marks": [[spent[-1][0] + 0.1, "101st"], [spent[-1][0] + waited, "next minute"]],
            },
        )


@scenario("TRF-11", needs=NEEDS, sabotage="limits.global-lifted", seconds=10)
def test_the_hourly_limit_counts_all_tenants_and_routes_together(
    limited: LimitedFactory, gateway: Gateway, tenants: tuple[Tenant, ...], story: Story
) -> None:
    """When the platform's hourly requests are spent, every tenant is refused on every route."""
    whole = 12
    entrance = limited("strict", requests_per_hour=whole)
    calls = [entrance.gateway.predict(tenant.model, tenant.token, json=tenant_input(tenant)) for tenant in tenants]
    calls.append(entrance.gateway.get("/").called("the default backend"))

    with story.given(
        f"an entrance with {whole} requests an hour for everybody, {entrance.spent} of them asked already"
    ):
        await_room_in_minute(10)
    with story.when("all tenants and a visitor ask in turn"):
        for number in range(whole - entrance.spent):
            each([calls[number % len(calls)]], answered(200))
    with story.then("the next request of each of them is refused, on each route"):
        each(calls, LIMITED & header("x-ratelimit-limit", matches(rf"\b{whole};w=3600")))
    with story("At the ordinary entrance, with buckets of its own, they are answered"):
        each(
            [gateway.predict(tenant.model, tenant.token, json=tenant_input(tenant)) for tenant in tenants],
            answered(200),
        )


@scenario("TRF-12", needs=NEEDS, sabotage="limits.jwt-lifted", seconds=8)
def test_a_token_holder_has_a_limit_of_its_own(
    limited: LimitedFactory,
    gateway: Gateway,
    possible_limits: Sequence[str],
    tenant_a: Tenant,
    signing_key: SigningKey,
    story: Story,
) -> None:
    """One token holder's requests are limited apart from the tenant's; a fresh token is no fresh limit.

    The promised 500 a minute are five times the tenant's 100: here the tenant has 1000 and the holder 8.
    """
    entrance = limited("strict", tenant_requests_per_minute=1000, jwt_requests_per_minute=8)
    ask = entrance.gateway.predict(tenant_a.model, tenant_a.token)
    again = ask.with_(
        token=token(signing_key, "tenant-a", label="a fresh token of the same holder", jti=str(uuid.uuid4()))
    )
    colleague = ask.with_(token=token(signing_key, "tenant-a", sub="user-a2", name="user-a2"))

    with story.given("an entrance where a token holder has 8 requests a minute, and its tenant 1000"):
        await_room_in_minute(10)
    with story.when("the holder has asked 8 times, with two tokens"):
        each([ask, again] * 4, answered(200))
    with story.then("it is refused with either of them"):
        each([ask, again], LIMITED & TOLD & header("x-ratelimit-limit", matches(r"^8, 1000;w=60, 8;w=60")))
    with story("A colleague of the same tenant is answered: it is not the tenant's limit"):
        each([colleague], answered(200) & that("7 requests left", lambda seen: remaining(seen) == 7))
    with story("At the platform's own entrance all limits are as they were asked for"):
        confirm(gateway.predict(tenant_a.model, tenant_a.token)(), limits_of(possible_limits))


@scenario(
    "TRF-13",
    needs=(*NEEDS, "ai-gateway"),
    sabotage=("limits.tokens-lifted", "openai.usage-not-counted"),
    seconds=12,
)
def test_a_spent_token_budget_closes_one_model(limited: LimitedFactory, tenant_b: Tenant, story: Story) -> None:
    """A tenant that has used up its tokens of one model is refused there, and goes on with another model."""
    budget = 150
    entrance = limited("strict", openai=True, tokens_per_hour=budget)
    ask, other = entrance.gateway.chat("tiny-llm", tenant_b.token), entrance.gateway.chat("tiny-llm-b", tenant_b.token)
    used = 0

    with story.given("two models that answer at this entrance"):
        await_room_in_minute(15)
        eventually(other, answered(200), within=Timeouts.current().route)
        used += eventually(ask, answered(200), within=Timeouts.current().route).json()["usage"]["total_tokens"]
    with story.when(f"tenant B has used its {budget} tokens of tiny-llm, counted by the replies' usage"):
        while used <= budget:
            seen = eventually(ask, answered(200), within=0)
            used += seen.json()["usage"]["total_tokens"]
        story.note("tokens", f"{used} of {budget}")
    with story.then("its next request is refused"):
        spent = header("x-ratelimit-limit", matches(rf"\b{budget};w=3600")) & header("x-envoy-ratelimited", "true")
        eventually(ask, LIMITED & spent, streak=2, within=5)
    with story("The other model answers: the budget is the model's"):
        each([other], answered(200))


@scenario("TRF-14", needs=NEEDS, sabotage="limits.by-client-header", seconds=8)
def test_no_header_of_the_client_gives_another_bucket(
    limited: LimitedFactory, tenant_a: Tenant, tenant_b: Tenant, story: Story
) -> None:
    """Whatever a client writes into x-tenant, it is counted as the tenant of its token."""
    disguises = [
        (),
        (("x-tenant", "tenant-a"),),
        (("x-tenant", tenant_b.name),),
        (("x-tenant", uuid.uuid4().hex),),
        (("x-tenant", ""),),
        (("x-tenant", tenant_b.name), ("X-Tenant", "tenant-c")),
        (("x-jwt-tenant", tenant_b.name), ("x-jwt-sub", uuid.uuid4().hex)),
    ]
    entrance = limited("strict", tenant_requests_per_minute=len(disguises))
    ask = entrance.gateway.predict(tenant_a.model, tenant_a.token)
    as_b = entrance.gateway.predict(tenant_b.model, tenant_b.token, json=tenant_input(tenant_b))
    calls = [ask.adding(*disguise) for disguise in disguises]

    with story.given(f"an entrance with {len(calls)} requests a minute for each tenant"):
        await_room_in_minute(10)
    with story.when("tenant A sends each spelling of x-tenant once"):
        left = [remaining(seen) for seen in each(calls, answered(200))]
    with story.then("all of them count in the same bucket"):
        assert left == list(reversed(range(len(calls)))), f"wanted one bucket to run down to 0, got {left} left"
    with story("It is empty for every spelling"):
        each(calls, LIMITED)
    with story("Nothing was counted as tenant B's, whose name A wrote"):
        seen = each([as_b], answered(200))[0]
        assert remaining(seen) == len(calls) - 1, f"wanted {len(calls) - 1} left for B, got {remaining(seen)}"


@scenario(
    "TRF-15",
    needs=(*NEEDS, "ai-gateway"),
    sabotage=("limits.not-merged", "limits.tenant-lifted", "limits.global-lifted"),
    seconds=15,
)
def test_a_routes_own_policy_lifts_no_limit(
    limited: LimitedFactory, own_model: OwnModelFactory, tenant_b: Tenant, tenant_a: Tenant, story: Story
) -> None:
    """A route with a traffic policy of its own, as publishing makes one, stays under the tenant's and the global limit.

    The published route and its policy (requests per minute) are written here as publishing writes them, so that this
    needs no management service. The OpenAI routes have a policy of their own as shipped.
    """
    own = own_model("tenant-b", {"v1": 1})
    published = f"/published/models/{own.name}"

    def routes(name: str, host: str) -> list[dict[str, Any]]:
        return published_route(own.tenant, own.name, published, name, host, requests_per_minute=4)

    of_tenant, of_all = 12, 24  # room for what it takes until the new routes answer
    entrance = limited(
        "strict", openai=True, routes=routes, tenant_requests_per_minute=of_tenant, requests_per_hour=of_all
    )
    plain = entrance.gateway.predict(tenant_b.model, tenant_b.token, json=tenant_input(tenant_b))
    chat = entrance.gateway.chat("tiny-llm", tenant_b.token)
    at_published = entrance.gateway.call("POST", f"{published}/predict", tenant_b.token, json=tenant_input(tenant_a))
    of_a = entrance.gateway.predict(tenant_a.model, tenant_a.token)

    with story.given(
        "a published route with 4 requests a minute of its own, and an OpenAI route with a policy of its own"
    ):
        await_room_in_minute(20)
        answers = await_route(chat, answered(200)) + await_route(at_published, answered(200) & served_by(own))
    with story.when("tenant B spends what the published route has"):
        answers += spend(at_published, 4)
    with story.then("that route refuses by its own limit, while B's other routes answer"):
        each([at_published], LIMITED & header("x-ratelimit-limit", matches(r"^4, ")))
        answers += len(each([chat, plain], answered(200)))
    with story("All of it counts against tenant B's limit: when that is spent, each route refuses"):
        answers += spend(plain, of_tenant)
        assert answers == of_tenant, f"wanted {of_tenant} answers for tenant B over all routes, got {answers}"
        each([chat, plain, at_published], LIMITED)
    with story("The global limit counts these routes too: tenant A gets less than its own limit until it is spent"):
        answers += entrance.spent + spend(of_a, of_all)
        assert answers <= of_all, f"wanted at most {of_all} answers for all tenants and routes, got {answers}"
        each([of_a], LIMITED & header("x-ratelimit-limit", matches(rf"^{of_all}, ")))


@scenario("TRF-16", needs=(*NEEDS, "outages"), sabotage="limiter.fails-closed", seconds=20)
@pytest.mark.parametrize("part", ["ratelimit", "redis"])
def test_a_limiter_that_is_down_lets_requests_through(
    part: str,
    limited: LimitedFactory,
    platform: Platform,
    tenant_a: Tenant,
    alone: Alone,
    story: Story,
) -> None:
    """While the limiter is down requests are answered without errors; back again, it enforces within a minute."""
    entrance = limited("strict", tenant_requests_per_minute=3)
    ask = entrance.gateway.predict(tenant_a.model, tenant_a.token)
    alone()

    with story.given("a tenant that is being limited"):
        await_room_in_minute(5)
        each([ask] * 3, answered(200))
        each([ask], LIMITED)
    stopped = False
    try:
        with stream(ask, rate=10, ok=answered(200, 429)) as traffic:
            with story.when(f"the {part} goes down under traffic"):
                traffic.mark("down")
                platform.stop(part)
                stopped = True
            with story.then("requests are let through"):
                eventually(ask, answered(200), streak=5, within=10)
                open_again = traffic.mark("open")
                window = traffic.collect(20)
                assert window.by_status == {"200": window.requests}, (
                    f"wanted 200 for all while it is down, got {window}"
                )
            with story.when("it is back"):
                platform.start(part)
                stopped = False
                back = traffic.mark("back")
            with story.then("the limit is enforced again, within a minute"):
                eventually(ask, LIMITED, streak=3, within=Timeouts.current().limiter_return)
                enforced = traffic.mark("enforced")
        seen = traffic.window()
        points = [[sample.end, 1000 * sample.seconds, sample.status] for sample in seen.samples]
        marks = [[traffic.marks["down"], "down"], [open_again, "open"], [back, "back"], [enforced, "enforced"]]
        story.plot(f"{part} down and back", {"kind": "timeline", "points": points, "marks": marks})
        with story("At no time was there an error: only answers and, with a limiter, refusals"):
            assert seen.errors == 0, f"wanted only 200 and 429 throughout, got {seen}"
    finally:
        if stopped:
            platform.start(part)


def spend(call: Call, most: int) -> int:
    """Sends until it is refused by the limiter; gives how many were answered, at most so many."""
    answers = 0
    while answers < most and eventually(call, answered(200) | LIMITED, within=0).status == 200:
        answers += 1
    eventually(call, LIMITED, within=0)
    return answers


def limits_of(sets: Sequence[str]) -> Check:
    """The reply names the limits of one of these sets, all of them."""
    wanted = [{f"{policies.limits(name)[key]};w={window}" for key, window in WINDOWS.items()} for name in sets]
    words = " or ".join(", ".join(sorted(each)) for each in wanted)
    whole = that(words, lambda told: any(each <= set((told or "").split(", ")) for each in wanted))
    return header("x-ratelimit-limit", whole)


def await_route(call: Call, check: Check) -> int:
    """Waits until a route answers; gives how many requests were counted against the tenant."""
    counted = 0

    def ask() -> Observation:
        nonlocal counted
        seen = call()
        counted += "x-ratelimit-limit" in seen.headers
        return seen

    eventually(ask, check, within=Timeouts.current().route, every=0.3)
    return counted


def published_route(
    tenant: str, model: str, path: str, name: str, host: str, requests_per_minute: int
) -> list[dict[str, Any]]:
    """A published model's route at the entrance and the policy that publishing gives it, here for tokens."""
    (shipped,) = [each for each in policies.model(tenant, model) if each["kind"] == "HTTPRoute"]
    route = route_at(shipped, host, f"published-{name}")
    route["spec"]["parentRefs"][0]["sectionName"] = name
    rule = {**route["spec"]["rules"][0], "matches": [{"path": {"type": "Exact", "value": f"{path}/predict"}}]}
    (rewrite,) = [each["urlRewrite"] for each in rule["filters"] if each["type"] == "URLRewrite"]
    to = {"type": "ReplaceFullPath", "replaceFullPath": f"/v1/models/{model}:predict"}
    rule["filters"] = [{"type": "URLRewrite", "urlRewrite": {**rewrite, "path": to}}]
    route["spec"] = {**route["spec"], "rules": [rule]}
    reference = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route["metadata"]["name"]}
    policy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": route["metadata"]["name"], "namespace": tenant},
        "spec": {
            "mergeType": "StrategicMerge",
            "targetRefs": [reference],
            "rateLimit": {"global": {"rules": [{"limit": {"requests": requests_per_minute, "unit": "Minute"}}]}},
        },
    }
    return [policy, route]


def tenant_input(tenant: Tenant) -> dict[str, Any]:
    """One instance that the tenant's model takes."""
    return {"instances": [[5.1, 3.5, 1.4, 0.2] if tenant.name == "tenant-a" else [0.0] * 64]}
