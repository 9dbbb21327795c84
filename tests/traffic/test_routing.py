"""Which model a request reaches: by path, by header, by tenant, by body; and what reaches none."""

import time
import uuid

from fixtures.scenario import scenario
from inferencebox.checks import (
    answered,
    at_most,
    attribute,
    body_json,
    contains,
    equals,
    every,
    length,
    refused,
    served_by,
    that,
)
from inferencebox.probes.logs import entries
from inferencebox.traffic import stream
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

IMAGE = {"instances": [[1.0] * 64]}
IRIS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


def asks_for(model):
    return [("x-ai-eg-model", getattr(model, "name", model))]


@scenario("TRF-01", needs=("gateway", "models"), sabotage="routes.misrouted", seconds=1)
def test_the_path_names_the_model(tenant_a, tenant_b, tenant_c, gateway, story):
    """The model named in the path is the one that answers, in each tenant and in both protocols."""
    for tenant, instances in ((tenant_a, IRIS), (tenant_b, IMAGE), (tenant_c, IMAGE)):
        model, own = tenant.model, answered(200) & served_by(tenant.model)
        with story.then(f"{tenant} asks for {model.name} and {model.name} answers"):
            predicted = body_json("predictions", length(equals(1)))
            eventually(gateway.predict(model, tenant.token, json=instances), own & predicted, streak=3)
            eventually(gateway.get(f"/v1/models/{model.name}", tenant.token), own)
            described = body_json("name", equals(model.name))
            eventually(gateway.get(f"/v2/models/{model.name}", tenant.token), own & described)


@scenario("TRF-02", needs=("gateway", "models"), sabotage="routes.header-ignored", seconds=1)
def test_a_header_names_the_model(tenant_b, tiny_llm, tiny_llm_b, gateway, story):
    """Where the path names no model, the header x-ai-eg-model does: of three models the one it names answers."""
    health = gateway.get("/v2/health/ready", tenant_b.token)
    for model in (tenant_b.model, tiny_llm, tiny_llm_b):
        with story.then(f"x-ai-eg-model: {model.name} reaches {model.name}"):
            eventually(health.adding(*asks_for(model)), answered(200) & served_by(model), streak=3)
    with story.then("a name that no model has reaches none, and so does no name"):
        confirm(health.adding(*asks_for("nobody"))(), refused(404, at="tier-1"))
        confirm(health(), refused(404, at="tier-1"))


@scenario("TRF-03", needs=("gateway", "workloads"), sabotage="jwt.tenant-not-forwarded", seconds=15)
def test_the_tenant_decides_between_models_of_one_name(tenant_a, tenant_b, own_model, gateway, story):
    """Two tenants have a model of the same name: who says its own tenant, as its token does, reaches its own model."""
    with story.given("a model of the same name in tenant A and in tenant B"):
        name = f"twin-{uuid.uuid4().hex[:6]}"
        models = {tenant.name: own_model(tenant.name, name=name) for tenant in (tenant_a, tenant_b)}
    for tenant, other in ((tenant_a, tenant_b), (tenant_b, tenant_a)):
        own = answered(200) & served_by(models[tenant.name])
        ask = gateway.predict(name, tenant.token)
        with story.then(f"{tenant} says x-tenant: {tenant}, and its own model answers"):
            eventually(ask.adding(("x-tenant", tenant.name)), own, streak=5)
        with story.then("it says nothing, and the token's tenant counts"):
            eventually(ask, own, streak=3)
        with story.then(f"it says x-tenant: {other}, and the token's tenant counts all the same"):
            seen = eventually(ask.adding(("x-tenant", other.name)), own, streak=3)
            assert models[other.name].arrivals(request_id=seen.request_id)() == 0, f"{other}'s model saw it"


@scenario("TRF-04", needs=("ai-gateway", "models"), sabotage=("authz.any-tenant", "routes.misrouted"), seconds=3)
def test_a_request_that_contradicts_itself_crosses_no_border(tenant_a, tenant_b, tiny_llm, tiny_llm_b, gateway, story):
    """Path, header and body name different models: one rule decides, always the same, and never into another tenant."""
    mine, foreign, token = tenant_b.model, tenant_a.model, tenant_b.token
    other_in_body = {**IMAGE, "model": foreign.name}

    with story.then("a path that names a model decides, whatever header and body say"):
        for header in (tiny_llm, foreign):
            call = gateway.predict(mine, token, asks_for(header), json=other_in_body)
            seen = eventually(call, answered(200) & served_by(mine), streak=3)
            assert foreign.arrivals(request_id=seen.request_id)() == 0, "the request reached tenant A as well"
    with story.then("on OpenAI's paths the body decides, whatever the header says"):
        for header in (tiny_llm_b, mine, foreign):
            call = gateway.chat(tiny_llm, token, asks_for(header), body={"max_tokens": 1})
            eventually(call, answered(200) & served_by(tiny_llm), streak=3)
    with story.given("the other tenant's model would answer its own tenant"):
        eventually(gateway.predict(foreign, tenant_a.token), answered(200) & served_by(foreign))
    crossings = {
        "the path names tenant A's model, header and body B's own": gateway.predict(
            foreign, token, asks_for(mine), json={**IRIS, "model": mine.name}
        ),
        "the same with x-tenant: tenant-a": gateway.predict(
            foreign, token, [*asks_for(mine), ("x-tenant", tenant_a.name)], json=IRIS
        ),
        "only the header names tenant A's model": gateway.get("/v2/health/ready", token, asks_for(foreign)),
    }
    for words, call in crossings.items():
        with story.then(f"{words}: 403 at tier 1, and A's model never sees it"):
            seen = eventually(call, refused(403, by="rbac", at="tier-1"), streak=2)
            assert foreign.arrivals(request_id=seen.request_id)() == 0, "the refused request reached tenant A's model"
    with story.then("the body names tenant A's model, the header B's own: no such model for tenant B"):
        call = gateway.chat(foreign, token, asks_for(tiny_llm))
        seen = confirm(call(), answered(404) & body_json("error.code", equals("model_not_found")))
        assert tiny_llm.arrivals(request_id=seen.request_id)() == 0, "the header sent it to tiny-llm after all"
        assert foreign.arrivals(request_id=seen.request_id)() == 0, "it reached tenant A's model"


@scenario("TRF-05", needs=("gateway", "mesh", "logs"), sabotage="default-backend.gone", seconds=2)
def test_what_is_no_model_goes_to_the_default_backend(platform, tenant_a, gateway, story):
    """A path that is about no model passes both gateways to the default backend; a model nobody has is 404."""
    with story.when("somebody without a token asks for a page"):
        page = gateway.get(f"/shop/cart-{uuid.uuid4().hex[:6]}")
        greeted = answered(200) & served_by("default-backend") & body_json("path", equals(page.path))
        seen = eventually(page, greeted)
    with story.then("Istio's gateway handed it on"):
        passed = length(equals(1)) & every(attribute("status", equals(200)))
        eventually(entries(platform, "tier-2", seen.request_id), passed)
    unknown = answered(404) & served_by("default-backend") & body_json("error", contains("sklearn-rose does not exist"))
    with story.then("a model that nobody has is 404, in both protocols"):
        eventually(gateway.predict("sklearn-rose", tenant_a.token), unknown)
        eventually(gateway.get("/v2/models/sklearn-rose", tenant_a.token), unknown)
    with story.then("one that is there answers on the same paths"):
        own = answered(200) & served_by(tenant_a.model)
        eventually(gateway.predict(tenant_a.model, tenant_a.token), own)
        eventually(gateway.get(f"/v2/models/{tenant_a.model.name}", tenant_a.token), own)


@scenario("TRF-06", needs=("gateway", "mesh", "logs"), sabotage="request-id.not-forwarded", seconds=3)
def test_one_request_can_be_followed_through_both_gateways(platform, tenant_a, gateway, story):
    """The same x-request-id stands in tier 1's log, then in tier 2's, and arrives at the model."""
    with story.when("tenant A asks its model"):
        seen = eventually(gateway.predict(tenant_a.model, tenant_a.token), answered(200) & served_by(tenant_a.model))
        path = f"/v1/models/{tenant_a.model.name}:predict"
    found = {}
    for tier in ("tier-1", "tier-2"):
        with story.then(f"{tier} has logged it, once, under that id"):
            right = attribute("path", equals(path)) & attribute("status", equals(200))
            once = that(f"one entry under that id in {tier}'s log", lambda them: len(them) == 1)
            (found[tier],) = eventually(entries(platform, tier, seen.request_id), once & every(right))
    with story.then("first tier 1, then tier 2, then the model"):
        (arrival,) = [one for each in tenant_a.model.replicas for one in each.arrivals(request_id=seen.request_id)]
        times = [found["tier-1"].at, found["tier-2"].at, arrival["at"] + 0.001]  # logs round down to milliseconds
        story.note("milliseconds since tier 1", ", ".join(f"{1000 * (at - times[0]):.0f}" for at in times))
        assert times == sorted(times), f"the order is another: {times}"
    with story.then("what tier 1 refuses stands in its log with the reason, and never in tier 2's"):
        refusal = confirm(gateway.predict(tenant_a.model)(), refused(401, by="jwt", at="tier-1"))
        denied = attribute("status", equals(401)) & attribute("details", contains("jwt"))
        eventually(entries(platform, "tier-1", refusal.request_id), length(equals(1)) & every(denied))
        consistently(entries(platform, "tier-2", refusal.request_id), equals([]), seconds=1)


@scenario("TRF-07", needs=("gateway", "mesh", "workloads"), sabotage="gateway.frozen", seconds=12)
def test_a_new_model_is_routable_at_once(platform, tenant_a, own_model, gateway, alone, story):
    """A new model answers through both gateways within 30 s; no gateway restarts, and nobody else notices."""
    limit = Timeouts.current().route
    name = f"new-{uuid.uuid4().hex[:6]}"
    with story.given("nobody has the model yet"):
        eventually(gateway.predict(name, tenant_a.token), answered(404) & served_by("default-backend"))
    alone()
    proxies = {(proxy.tier, proxy.pid, proxy.started) for proxy in platform.running("envoy") if proxy.tier}
    with stream(gateway.predict(tenant_a.model, tenant_a.token), rate=5) as others:
        others.mark("before")
        with story.when("tenant A adds it: replica, Service, mesh rules and routes"):
            began = time.monotonic()
            model = own_model(tenant_a.name, name=name)
            seconds = time.monotonic() - began
        others.mark("after")
        with story.then(f"it answers after {seconds:.1f} s"):
            eventually(gateway.predict(model, tenant_a.token), answered(200) & served_by(model), streak=3)
            assert not (why := at_most(limit)(seconds)), f"seconds until the new model answered: {why}"
        window = others.window("before", "after")
    with story.then("the gateways' proxies are the same processes as before"):
        now = {(proxy.tier, proxy.pid, proxy.started) for proxy in platform.running("envoy") if proxy.tier}
        assert {tier for tier, _, _ in proxies} == {"tier-1", "tier-2"}, f"proxies before: {sorted(proxies)}"
        assert now == proxies, f"proxies before {sorted(proxies)}, now {sorted(now)}"
    with story.then("and tenant A's other model answered all the while"):
        story.note("meanwhile", str(window))
        assert window.requests > 0, "no request was sent meanwhile"
        assert not (why := attribute("errors", equals(0))(window)), f"{why}: {window}"
