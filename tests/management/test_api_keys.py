"""API keys: what they open, what they do not, and how they are changed."""

import time

import pytest

from fixtures.scenario import scenario
from inferencebox.checks import answered, body_json, equals, header, no_header, present, refused, served_by
from inferencebox.traffic import stream
from inferencebox.waiting import Timeouts, confirm, eventually

NEEDS = ("management", "gateway", "models")
BY_KEY = refused(401, by="api-key", at="tier-1")
NOT_THIS_ONE = refused(403, by="api-key", at="tier-1")
ANY_KEYS = ("x", "ibk_", "*", ".*", "true", "null", "ibk_" + "A" * 43, "' OR 1=1 --", "A" * 4000)


@scenario("SEC-32", needs=NEEDS, sabotage=("keys.unchecked", "keys.any-model"), seconds=20)
def test_a_key_opens_its_own_model_only(publishing, tenant_a, tenant_b, tenant_c, story):
    """A published route takes its own key; no key or a wrong one is 401; another model's key or another tenant 403."""
    found, other = publishing("tenant-a"), publishing("tenant-a", model=tenant_a.model)
    with story.given("two published models of one tenant, each with its own key"):
        good = confirm(found.ask()(), answered(200) & served_by(found.model))
        confirm(other.ask()(), answered(200) & served_by(other.model))
    sent = []
    with story.then("without a key, or with one that is nobody's, there is no answer"):
        for key in ("", *ANY_KEYS):
            sent.append(confirm(found.ask(key)(), BY_KEY))
        token = found.ask("").with_(token=tenant_a.token)
        sent.append(confirm(token.called("with the tenant's token in place of the key")(), BY_KEY))
    with story.then("each key is refused at the other model"):
        sent.append(confirm(found.ask(other.key)(), NOT_THIS_ONE))
        confirm(other.ask(found.key)(), NOT_THIS_ONE)
    with story.then("nothing of that reached the model, which knows of the request that it answered"):
        assert found.model.reached_by([good])
        assert not (reached := found.model.reached_by(sent)), reached
    with story.when("only tenant B is allowed, with a token that says so"):
        only_b = {"requireApiKey": True, "allowedTenants": ["tenant-b"]}
        confirm(found.by.republish(found.model.name, authentication=only_b)(), answered(200))
    with story.then("the key alone no longer does, B's token with it does, and others' tokens do not"):
        eventually(found.ask().called("the key alone"), BY_KEY)
        confirm(found.ask().with_(token=tenant_b.token)(), answered(200) & served_by(found.model))
        for tenant in (tenant_a, tenant_c):
            confirm(found.ask().with_(token=tenant.token)(), NOT_THIS_ONE)
        confirm(found.ask("").with_(token=tenant_b.token)(), BY_KEY)


@scenario("MGT-21", needs=NEEDS, sabotage=("keys.no-grace", "keys.endless-grace"), seconds=75)
def test_a_key_is_rotated_under_load(publishing, story):
    """A key is rotated while requests run: none fails; the new key works at once, the old one for a minute more."""
    found = publishing("tenant-a")
    old = found.ask().called("with the old key")
    with stream(old, rate=20) as running:
        running.collect(40)
        with story.when("the key is rotated"):
            running.mark("rotated")
            began = time.monotonic()
            seen = confirm(found.by.rotate(found.model.name)(), answered(200) & body_json("newApiKey", present()))
            rotation = seen.json()
        new = found.ask(rotation["newApiKey"]).called("with the new key")
        with story.then("the new key works at once"):
            confirm(new(), answered(200) & served_by(found.model))
        with story.then("the old one goes on working within its grace"):
            while time.monotonic() - began < Timeouts().key_grace - 8:
                running.collect(20)
            running.mark("grace")
        window = running.window(None, "grace")
        assert window.errors == 0, f"requests failed while the key was rotated: {window}"
        story.note("requests across the rotation", str(window))
    with story.then("and ends after a minute"):
        eventually(old, BY_KEY, within=25, every=1)
        waited = time.monotonic() - began
        assert Timeouts().key_grace - 5 <= waited <= Timeouts().key_grace + 15, f"it ended after {waited:.0f} s"
        confirm(new(), answered(200))


@scenario("MGT-22", needs=NEEDS, sabotage="keys.endless-grace", seconds=75)
def test_a_key_says_whose_it_is(publishing, management, story):
    """A good key is told whose it is, however it is sent; unknown, unpublished and expired keys are refused alike."""
    found = publishing("tenant-a", wait=False)

    def validate(key: str, how: str = "header"):
        call = management.anonymous.call("POST", "/api/validate-api-key").called("validate a key")
        if how == "header":
            return call.adding(("X-API-Key", key))
        return call.with_(token=key) if how == "bearer" else call.with_(json={"apiKey": key})

    told = body_json("valid", equals(True)) & body_json("tenant", equals("tenant-a"))
    told &= body_json("model", equals(found.model.name)) & header("x-tenant-id", "tenant-a")
    told &= header("x-model-name", found.model.name) & header("x-model-type", "traditional")
    with story.then("as a header, as a bearer token and in the body"):
        for how in ("header", "bearer", "body"):
            confirm(validate(found.key, how)(), answered(200) & told)
    with story.then("unknown and missing keys are refused"):
        for key in ANY_KEYS:
            for how in ("header", "body"):
                confirm(validate(key[:400], how)(), refused(401) & no_header("x-tenant-id"))
        confirm(management.anonymous.call("POST", "/api/validate-api-key", {})(), refused(401))
    with story.when("the key is rotated"):
        confirm(found.by.rotate(found.model.name)(), answered(200))
    with story.then("it is good for its grace, and then expired"):
        confirm(validate(found.key)(), answered(200))
        eventually(validate(found.key), refused(401), within=Timeouts().key_grace + 15, every=2)
    with story.when("the model is unpublished"):
        fresh = confirm(found.by.rotate(found.model.name)(), answered(200)).json()["newApiKey"]
        confirm(validate(fresh)(), answered(200))
        confirm(found.by.unpublish(found.model.name)(), answered(200))
    with story.then("its key is inactive at once"):
        confirm(validate(fresh)(), refused(401))


@scenario("MGT-23", needs=(*NEEDS, "ai-gateway"), sabotage="keys.unchecked", seconds=20)
@pytest.mark.parametrize("api", ["kserve", "openai"])
def test_any_value_is_no_key(api, publishing, story):
    """Whatever stands in place of a key, and wherever it stands, no request without the right one reaches the model."""
    found = publishing("tenant-a" if api == "kserve" else "tenant-b", api=api)
    ask = found.chat if api == "openai" else found.ask
    with story.given("the right key opens it"):
        good = eventually(ask(), answered(200) & served_by(found.model), streak=3)
    sent = []
    with story.then("no other value does"):
        for value in ANY_KEYS:
            sent.append(confirm(ask(value)(), BY_KEY))
        sent.append(confirm(ask("")(), refused(401, by=("api-key", "jwt"), at="tier-1")))
    with story.then("nor the right key where it does not belong"):
        right = str.__str__(found.key)
        for name in ("Authorization", "x-api-key-2", "api-key", "apikey", "cookie"):
            sent.append(confirm(ask("").adding((name, f"Bearer {right}"))(), refused(401, by=("api-key", "jwt"))))
        query = ask("")
        sent.append(confirm(query.with_(path=f"{query.path}?x-api-key={right}")(), refused(401, by=("api-key", "jwt"))))
    with story.then("nor what only the gateway says"):
        claims = [("x-published-model", f"{found.model.tenant}.{found.model.name}"), ("x-tenant", found.model.tenant)]
        claims.append(("x-publication", "somebody-else"))
        bare = ask("x").adding(*claims, ("x-ai-eg-model", found.model.name))
        sent.append(confirm(bare(), BY_KEY))
    with story.then("two keys at once, one of them right, are no key either, or the right one"):
        both = ask("x").adding(("x-api-key", right))()
        assert both.status in (200, 401), both
        sent += [both] if both.status == 401 else []
    with story.then("and nothing of it reached the model, which knows of the request that it answered"):
        assert found.model.reached_by([good])
        assert not (reached := found.model.reached_by(sent)), reached
