"""What tier 1 thinks of a token: none, not in the right form, not in its time, for somebody else, forged."""

import time
from pathlib import Path

from fixtures.gaps import ExpectGap
from fixtures.gateway import Gateway
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import (
    Check,
    answered,
    body_json,
    body_text,
    contains,
    equals,
    every,
    length,
    refused,
    served_by,
    that,
)
from inferencebox.identity import ABSENT, Forger, Token, token
from inferencebox.platform import Platform
from inferencebox.probes import logs
from inferencebox.probes.http import Call, Observation
from inferencebox.redaction import Leak, scan
from inferencebox.waiting import eventually

INVALID = refused(401, by="jwt", at="tier-1")
NOT_YOURS = refused(403, by="rbac", at="tier-1")


def ask_each(calls: list[Call], verdict: Check) -> list[Observation]:
    """Sends each once, and wants the same verdict on each."""
    seen = []
    for call in calls:
        reply = call()
        seen.append(reply)
        why = verdict(reply)
        assert why is None, f"{call}: {why}"
    return seen


def with_tokens(call: Call, tokens: list[Token]) -> list[Call]:
    return [call.with_(token=each).called(f"{call} with a token: {each.label}") for each in tokens]


def opens_its_own_model(gateway: Gateway, tenant: Tenant, good: Token, why: str) -> Observation:
    """The positive twin: a platform that refuses everybody proves nothing."""
    call = gateway.predict(tenant.model, good).called(f"{why} at {tenant.model}")
    reply = eventually(call, answered(200) & served_by(tenant.model), streak=2)
    assert tenant.model.reached_by([reply]), "a request that was answered by the model is not among its arrivals"
    return reply


def never_arrived(tenant: Tenant, refused_ones: list[Observation]) -> None:
    arrived = tenant.model.reached_by(refused_ones)
    assert not arrived, f"refused, and yet it reached {tenant.model}: {', '.join(arrived)}"


@scenario("SEC-01", needs=("gateway.jwt", "mesh", "models"), sabotage="jwt.foreign-jwks", seconds=1)
def test_a_tenants_token_opens_its_model(gateway: Gateway, tenant_a: Tenant, story: Story) -> None:
    """With its token tenant A gets a prediction for an iris from its own model, through both gateways."""
    with story.when("A asks which iris this is, with its token"):
        reply = eventually(gateway.predict(tenant_a.model, tenant_a.token), answered(200), streak=2)
    with story.then("the answer is setosa, and A's own model gave it"):
        for check in (body_json("predictions", equals([0])), served_by(tenant_a.model)):
            assert check(reply) is None, check(reply)
    with story.then("exactly this request reached the model, once"):
        assert tenant_a.model.arrivals(request_id=reply.request_id)() == 1, "the model did not count this request once"


@scenario("SEC-02", needs=("gateway.jwt", "models"), sabotage="jwt.removed", seconds=1)
def test_without_a_token_nobody_gets_in(gateway: Gateway, tenants: tuple[Tenant, ...], story: Story) -> None:
    """Without a token every tenant's model is closed, at the first gateway, and the model never hears of it."""
    for tenant in tenants:
        asked = gateway.get(f"/v1/models/{tenant.model.name}")
        with story.when(f"somebody without a token asks {tenant}'s model"):
            calls = [
                asked.called(f"reading {tenant.model}"),
                gateway.predict(tenant.model).called(f"asking {tenant.model}"),
            ]
            seen = ask_each(calls, INVALID & body_text(contains("Jwt is missing")))
        with story.then(f"{tenant}'s model heard nothing of it, but hears {tenant} itself"):
            never_arrived(tenant, seen)
            good = eventually(asked.with_(token=tenant.token), answered(200) & served_by(tenant.model))
            assert tenant.model.reached_by([good]), "the genuine request is not among the model's arrivals"


@scenario("SEC-03", needs=("gateway.jwt", "models"), sabotage="jwt.removed", seconds=1)
def test_what_is_no_token_is_refused(gateway: Gateway, tenant_a: Tenant, forger: Forger, story: Story) -> None:
    """What is not a token in the right form is refused as such: any text, empty, Basic, bare, two parts, not base64."""
    predict = gateway.predict(tenant_a.model)
    with story.given("the very token that some of them are made of is good"):
        opens_its_own_model(gateway, tenant_a, forger.genuine(), "the whole token, as a Bearer")
    with story.when("each of them is sent"):
        seen = ask_each([bad.on(predict) for bad in forger.malformed()], INVALID)
    with story.then("none reached the model"):
        never_arrived(tenant_a, seen)


@scenario("SEC-04", needs=("gateway.jwt", "models"), sabotage="jwt.removed", seconds=1)
def test_a_token_is_good_in_its_time_only(gateway: Gateway, tenant_a: Tenant, forger: Forger, story: Story) -> None:
    """A token that expired 5 minutes ago, or that begins in 10, is refused although its signature is right."""
    predict = gateway.predict(tenant_a.model)
    with story.given("tokens signed by the same key and in their time are good"):
        now = int(time.time())
        in_time = token(forger.key, "tenant-a", nbf=now - 600, exp=now + 300, label="since 10, for 5 more minutes")
        opens_its_own_model(gateway, tenant_a, in_time, in_time.label)
    with story.when("the token expired 5 minutes ago"):
        seen = ask_each(with_tokens(predict, [forger.expired(300)]), INVALID & body_text(contains("expired")))
    with story.when("the token begins in 10 minutes"):
        seen += ask_each(
            with_tokens(predict, [forger.not_yet_valid(600)]), INVALID & body_text(contains("not yet valid"))
        )
    with story.then("neither reached the model"):
        never_arrived(tenant_a, seen)


@scenario(
    "SEC-05",
    needs=("gateway.jwt", "models"),
    sabotage=("jwt.audiences-any", "jwt.issuers-mixed", "jwt.removed"),
    seconds=1,
)
def test_a_token_is_for_whom_it_says(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, forger: Forger, story: Story
) -> None:
    """A token of another issuer is invalid; one for an unknown audience, or for another tenant's, is not for this."""
    predict = gateway.predict(tenant_a.model)
    with story.given("the same key signs good tokens"):
        opens_its_own_model(gateway, tenant_a, forger.genuine(), "issuer and audience right")
    with story.when("the issuer is another: the token is invalid"):
        wrong_issuer = INVALID & body_text(contains("issuer"))
        seen = ask_each(
            with_tokens(predict, [forger.wrong_issuer(), token(forger.key, "tenant-a", iss=ABSENT)]), wrong_issuer
        )
    with story.when("the audience is none of the platform's: forbidden"):
        others = [forger.wrong_audience(), token(forger.key, "tenant-a", aud=ABSENT, label="no audience")]
        seen += ask_each(with_tokens(predict, others), refused(403, by="audience", at="tier-1"))
    with story.when("the audience is another tenant than the tenant claim: forbidden, at either one's door"):
        torn = forger.audience_of("tenant-b")
        at_b = gateway.get(f"/v1/models/{tenant_b.model.name}").called("reading B's model")
        seen += ask_each(with_tokens(predict, [torn]), NOT_YOURS)
        seen_at_b = ask_each(with_tokens(at_b, [torn]), NOT_YOURS)
    with story.then("none reached a model"):
        never_arrived(tenant_a, seen)
        never_arrived(tenant_b, seen_at_b)


@scenario("SEC-06", needs=("gateway.jwt", "models"), sabotage="jwt.removed", seconds=1)
def test_a_forged_token_is_refused(gateway: Gateway, tenant_a: Tenant, forger: Forger, story: Story) -> None:
    """A token is refused that is unsigned, signed with the public key, changed, or signed by a key it brings along."""
    predict = gateway.predict(tenant_a.model)
    with story.given("a token with these claims and the right signature is good"):
        opens_its_own_model(gateway, tenant_a, forger.genuine(), "the right signature")
    with story.when("each forgery is sent"):
        seen = ask_each(with_tokens(predict, forger.wrong_signatures()), INVALID)
    with story.then("none reached the model"):
        never_arrived(tenant_a, seen)


@scenario("SEC-07", needs=("gateway.jwt", "models", "ai-gateway"), sabotage="authz.default-allow", seconds=1)
def test_nobody_without_a_tenant_gets_in(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, forger: Forger, known_gap: ExpectGap, story: Story
) -> None:
    """A token whose tenant claim is absent, empty, a list, unknown or in other letters opens nothing: 403."""
    predict = gateway.predict(tenant_a.model)
    with story.given("with the tenant claim in order the same token is good"):
        opens_its_own_model(gateway, tenant_a, forger.tenant_claim("tenant-a"), "tenant claim tenant-a")
    with story.when("the claim is wrong: A's model is closed"):
        seen = ask_each(with_tokens(predict, forger.wrong_tenant_claims()), NOT_YOURS)
        never_arrived(tenant_a, seen)
    with story.then("and so is everything that all tenants share: unknown models and the OpenAI entrance"):
        shared = [gateway.get("/v1/models/nobodys-model"), gateway.chat("tiny-llm").called("chatting with B's model")]
        for call in shared:
            ask_each(with_tokens(call, forger.wrong_tenant_claims()), NOT_YOURS)
    with story.then("the list of models is closed too, and names none to whoever gets it all the same"):
        listing = gateway.get("/v1/models")
        names_none = answered(200) & body_json("data", equals([]))
        ask_each(with_tokens(listing, forger.wrong_tenant_claims()), NOT_YOURS | names_none)
        with known_gap("models-list-before-authorization"):
            ask_each(with_tokens(listing, forger.wrong_tenant_claims()), NOT_YOURS)
        own = listing.with_(token=tenant_b.token).called("the list with B's token")
        eventually(own, body_json("data", every(that("B's", lambda model: model["owned_by"] == "tenant-b"))))


@scenario("SEC-18", needs=("gateway.jwt", "logs", "models"), sabotage="jwt.query-parameter", seconds=3)
def test_a_token_in_the_address_is_no_token(
    platform: Platform, gateway: Gateway, tenant_a: Tenant, forger: Forger, tmp_path: Path, story: Story
) -> None:
    """A good token in the address, a cookie or another header opens nothing, and no log file ever shows it."""
    good = forger.genuine()
    text = str.__str__(good)
    predict = gateway.predict(tenant_a.model)
    with story.given("in the Authorization header the token is good"):
        opens_its_own_model(gateway, tenant_a, good, "in the header")
    with story.when("it comes in the address, in a cookie or in another header: none was sent"):
        in_address = [predict.with_(path=f"{predict.path}?{name}={text}") for name in ("access_token", "token", "jwt")]
        headers = (
            ("Cookie", f"access_token={text}"),
            ("X-Access-Token", text),
            ("Proxy-Authorization", f"Bearer {text}"),
        )
        in_header = [predict.adding(pair).called(f"{predict} with the token in {pair[0]}") for pair in headers]
        seen = ask_each([*in_address, *in_header], INVALID & body_text(contains("Jwt is missing")))
        never_arrived(tenant_a, seen)
    with story.when("it comes in the address beside the header, and so all the way to the model"):
        both = predict.with_(path=f"{predict.path}?access_token={text}", token=good)
        passed = eventually(both.called("with the token in both places"), answered(200) & served_by(tenant_a.model))
    with story.then("both gateways have logged these requests"):
        for tier, reply in (("tier-1", seen[0]), ("tier-1", passed), ("tier-2", passed)):
            eventually(logs.entries(platform, tier, reply.request_id), length(equals(1)))
    with story.then("and no log file of the platform shows the token; one that did would be noticed"):
        sample = tmp_path / "some.log"
        sample.write_text(f"GET {predict.path}\nGET {predict.path}?access_token={text}\n")
        assert [leak.line for leak in tokens_in(sample)] == [2], "the search is blind: it missed a made-up log's token"
        leaks = tokens_in(platform.logs)
        assert not leaks, f"a token is in a log, {leaks[0].file.name} line {leaks[0].line} ({len(leaks)} such lines)"


def tokens_in(written: Path) -> list[Leak]:
    """Where tokens are in a log file, or in all below a folder."""
    return [leak for leak in scan(written) if leak.kind == "a JSON web token"]
