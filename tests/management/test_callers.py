"""Who may call the management service, and for what."""

import uuid

import pytest

from fixtures.gateway import IRIS
from fixtures.management import ADMINISTRATOR, lasting, leftovers, naming, unhurried
from fixtures.scenario import scenario
from inferencebox.checks import (
    Check,
    answered,
    body_json,
    equals,
    header,
    matches,
    present,
    refused,
    served_by,
    that,
)
from inferencebox.identity import claims_of
from inferencebox.probes.http import Call
from inferencebox.waiting import confirm, eventually

NEEDS = ("management",)
NAMED = body_json("error", present())
MODEL = "sklearn-iris"
PROTECTED = [
    ("GET", "/api/tenant"),
    ("GET", "/api/models"),
    ("POST", "/api/models"),
    ("GET", f"/api/models/{MODEL}"),
    ("PUT", f"/api/models/{MODEL}"),
    ("DELETE", f"/api/models/{MODEL}"),
    ("GET", f"/api/models/{MODEL}/logs"),
    ("POST", f"/api/models/{MODEL}/predict"),
    ("POST", f"/api/models/{MODEL}/publish"),
    ("PUT", f"/api/models/{MODEL}/publish"),
    ("GET", f"/api/models/{MODEL}/publish"),
    ("DELETE", f"/api/models/{MODEL}/publish"),
    ("POST", f"/api/models/{MODEL}/publish/rotate-key"),
    ("GET", "/api/published-models"),
    ("POST", "/api/publish/test/execute"),
    ("POST", "/api/publish/test/validate"),
    ("GET", "/api/publish/test/history"),
]
ADMIN = [
    ("GET", "/api/admin/system"),
    ("GET", "/api/admin/tenants"),
    ("GET", "/api/admin/resources"),
    ("GET", "/api/admin/logs"),
    ("GET", "/api/admin/ai-gateway-service"),
    ("POST", "/api/admin/kubectl"),
]


@scenario("MGT-01", needs=NEEDS, sabotage="management.no-administrator", seconds=2)
def test_it_is_healthy_and_lets_the_administrator_in(management, story):
    """The service is healthy; the right password opens it, a wrong one and a missing field are told apart."""
    with story.then("it is healthy, and says when it was asked"):
        told = body_json("status", equals("healthy")) & body_json("timestamp", matches(r"^\d{4}-\d\d-\d\dT"))
        eventually(management.anonymous.get("/health"), answered(200) & told)
    with story.then("name and password are worth a token of the administrator"):
        user = body_json("user.isAdmin", equals(True)) & body_json("user.tenant", equals("admin"))
        seen = confirm(management.login(**ADMINISTRATOR)(), answered(200) & user & body_json("token", present()))
        admin = management.holding(seen.json()["token"], "admin")
        confirm(admin.get("/api/tenant")(), answered(200) & body_json("isAdmin", equals(True)))
    with story.then("a wrong password and an unknown name get the same answer"):
        for name in (ADMINISTRATOR["username"], f"nobody-{uuid.uuid4().hex[:6]}"):
            confirm(management.login(username=name, password="wrong")(), refused(401) & NAMED)
    with story.then("a missing field is another matter"):
        for fields in ({"username": "admin"}, {"password": "x"}, {}):
            confirm(management.login(**fields)(), refused(400) & NAMED)
    with story.then("who goes on guessing has to wait"):
        name = f"guessed-{uuid.uuid4().hex[:6]}"
        for _ in range(10):
            confirm(management.login(username=name, password="wrong")(), refused(401))
        confirm(management.login(username=name, password="wrong")(), refused(429) & header("retry-after", present()))


@scenario("MGT-02", needs=NEEDS, sabotage="management.foreign-issuer", seconds=3)
def test_every_path_asks_who_calls(management, administrator, story):
    """Every protected path refuses callers without a token; administrators' paths refuse tenants."""
    tenant = management.user("tenant-a")
    with story.given("a tenant and an administrator who are let in"):
        confirm(tenant.get("/api/tenant")(), answered(200) & body_json("tenant", equals("tenant-a")))
        confirm(unhurried(administrator.get("/api/admin/tenants")), answered(200))
    with story.then("without a token no protected path says anything"):
        for method, path in PROTECTED + ADMIN:
            confirm(management.anonymous.call(method, path, {})(), refused(401) & NAMED)
    with story.then("nor with another scheme, or none"):
        for value in ("Basic YWRtaW46cGFzc3dvcmQ=", "Bearer", "token", ""):
            call = management.anonymous.get("/api/models").adding(("Authorization", value))
            confirm(call(), refused(401) & NAMED)
    with story.then("a tenant's token does not open what is the administrators'"):
        for method, path in ADMIN:
            confirm(tenant.call(method, path, {"command": "get pods"})(), refused(403) & NAMED)
    with story.then("the document of the API names exactly these paths, and nothing else is open"):
        document = confirm(management.anonymous.get("/api/openapi.json")(), answered(200)).json()
        shown = {
            (method.upper(), path.replace("{name}", MODEL))
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if operation.get("security")
        }
        assert shown == set(PROTECTED + ADMIN), f"not asked by this test: {sorted(shown ^ set(PROTECTED + ADMIN))}"


NOT_VALID = body_json("error", equals("the token is not valid"))


@scenario("MGT-03", needs=NEEDS, sabotage="management.foreign-issuer", seconds=3)
def test_a_forged_token_opens_nothing(management, forger, story):
    """No unsigned, altered, foreign or expired token is taken, nor one that some older version knew by heart."""
    bad = [*forger.wrong_signatures(), forger.expired(), forger.not_yet_valid(), forger.wrong_issuer()]
    bad += [forger.wrong_audience(), forger.audience_of("tenant-b"), *forger.wrong_tenant_claims()]
    with story.then(f"none of {len(bad)} forgeries does"):
        for forged in bad:
            seen = management.holding(forged).get("/api/models")()
            confirm(seen, refused(401, 403) & NOT_VALID)
    with story.then("nor one for the administrator, signed by the platform's key for tenants"):
        claims = {"iss": "management.inference-in-a-box", "tenant": "admin", "isAdmin": True}
        assert claims_of("tenant-a", **claims)["iss"] == claims["iss"]
        for name in (forger._signed("administrator by claim", **claims), "super-admin-token"):
            confirm(management.holding(name).get("/api/admin/system")(), refused(403) & NOT_VALID)
    with story.then("the genuine token that they imitate does"):
        confirm(management.user("tenant-a").get("/api/models")(), answered(200) & body_json("models", present()))


@scenario("MGT-04", needs=NEEDS, sabotage="management.down", seconds=1)
def test_it_hands_out_no_tokens(management, gateway, story):
    """Nobody gets tenants' tokens from the service, at its own port or through the gateway."""
    with story.given("the service answers at both"):
        confirm(management.anonymous.get("/api/frameworks")(), answered(200))
        console = gateway.at("console.inference-in-a-box")
        eventually(console.get("/api/frameworks"), answered(200))
    with story.then("there are no tokens"):
        for path in ("/api/tokens", "/api/token", "/tokens", "/api/admin/tokens"):
            for call in (management.anonymous.get(path), console.get(path)):
                seen = confirm(call(), answered(200, 401, 403, 404))
                assert "eyJ" not in seen.text, f"{seen.asked} gave something like a token"
                assert path == "/tokens" or seen.status != 200, f"{seen.asked}: {seen}"


@scenario("MGT-08", needs=(*NEEDS, "gateway", "models"), sabotage="management.foreign-issuer", seconds=6)
@pytest.mark.parametrize("how", ["query", "body", "name"])
def test_a_tenant_acts_in_its_own_namespace_only(how, management, publishing, own_name, kube, story):
    """Whatever a tenant writes into query, body or name, it acts in its own namespace, and nobody else's changes."""
    theirs = publishing("tenant-b")
    name = theirs.model.name
    published = theirs.by.published(name)
    with story.given("a published model of tenant B, which tenant B can see"):
        told = lasting(confirm(published(), answered(200)).json())
        objects = leftovers(kube, "tenant-b", name)
    with story.then("tenant A can neither see, ask, publish, change nor remove it, nor what is published of it"):
        for call, why in tricks(how, management.anonymous, name, own_name):
            # ten calls a second are a user's (MGT-37): each has one of its own here
            confirm(call.with_(token=management.user("tenant-a").token)(), why)
    with story.then("the model and what is published of it are as before, and the key works"):
        confirm(theirs.by.get(f"/api/models/{name}")(), answered(200) & body_json("ready", equals(True)))
        assert lasting(confirm(published(), answered(200)).json()) == told
        assert leftovers(kube, "tenant-b", name) == objects
        confirm(theirs.ask()(), answered(200) & served_by(theirs.model))
    with story.then("and nothing was made, anywhere"):
        assert not (found := leftovers(kube, "tenant-a", name)), found
        for tenant in ("tenant-a", "tenant-b"):
            assert not kube.get("inferenceservice", own_name, tenant).ok, f"there is {own_name} in {tenant}"
    with story.then("its list shows its own models only"):
        names = body_json(
            "models", that("tenant A's", lambda all_: {each["namespace"] for each in all_} == {"tenant-a"})
        )
        confirm(management.user("tenant-a").get("/api/models")(), answered(200) & names)


OTHERS = refused(403) & NAMED & body_json("details", equals("you are tenant-a"))
NOT_THERE = (refused(404) & NAMED) | (refused(400) & NAMED & naming("path.name"))
QUERIES = {
    "namespace=tenant-b": OTHERS,
    "namespace=tenant-a&namespace=tenant-b": OTHERS,
    "namespace=TENANT-B": refused(400) & NAMED & naming("query.namespace"),
}


def tricks(how: str, mine, name: str, new: str) -> list[tuple[Call, Check]]:
    """Ways of pointing at tenant B's model, or of making a new one there, and how each is refused."""
    if how == "query":
        lists = [mine.get("/api/models"), mine.get("/api/published-models")]
        calls = [*lists, *deeds(mine, name), mine.publish(name, tenantId="tenant-b")]
        return [
            (call.with_(path=f"{call.path}?{query}").called(f"{call}?{query}"), why)
            for query, why in QUERIES.items()
            for call in calls
        ]
    if how == "body":
        model = {"name": new, "framework": "sklearn", "storageUri": "gs://bucket/model", "namespace": "tenant-b"}
        test = {"modelName": name, "namespace": "tenant-b"}
        refusals = [
            mine.publish(name, tenantId="tenant-b"),
            mine.publish(MODEL, tenantId="tenant-b"),
            mine.call("POST", "/api/models", model),
            mine.call("POST", "/api/publish/test/execute", {**test, "inputData": {}}),
            mine.call("POST", "/api/publish/test/validate", {**test, "config": {}}),
        ]
        return [*((call, OTHERS) for call in refusals), (mine.republish(name, tenantId="tenant-b"), NOT_THERE)]
    odd = (f"..%2f..%2fnamespaces%2ftenant-b%2f{name}", f"tenant-b%2f{name}", f"tenant-b.{name}", f"{name}%00", name)
    return [(call, NOT_THERE) for each in odd for call in deeds(mine, each)]


def deeds(mine, name: str) -> list[Call]:
    """All that tenant A can do with a model and with what is published of it."""
    model = f"/api/models/{name}"
    return [
        mine.get(model),
        mine.call("PUT", model, {"maxReplicas": 2}),
        mine.call("DELETE", model),
        mine.get(f"{model}/logs"),
        mine.call("POST", f"{model}/predict", {"inputData": {"instances": [list(row) for row in IRIS]}}),
        mine.publish(name, tenantId="tenant-a"),
        mine.published(name),
        mine.republish(name, externalPath="/stolen"),
        mine.rotate(name),
        mine.unpublish(name),
    ]
