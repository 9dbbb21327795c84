"""Who may call the management service, and for what."""

import uuid

import pytest

from fixtures.management import ADMINISTRATOR, leftovers, unhurried
from fixtures.scenario import scenario
from inferencebox.checks import answered, body_json, equals, header, matches, present, refused, that
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


@scenario("MGT-03", needs=NEEDS, sabotage="management.foreign-issuer", seconds=3)
def test_a_forged_token_opens_nothing(management, forger, story):
    """No unsigned, altered, foreign or expired token is taken, nor one that some older version knew by heart."""
    with story.given("the genuine token that they imitate opens the tenant's page"):
        confirm(management.user("tenant-a").get("/api/tenant")(), answered(200))
    bad = [*forger.wrong_signatures(), forger.expired(), forger.not_yet_valid(), forger.wrong_issuer()]
    bad += [forger.wrong_audience(), forger.audience_of("tenant-b"), *forger.wrong_tenant_claims()]
    with story.then(f"none of {len(bad)} forgeries does"):
        for forged in bad:
            seen = management.holding(forged).get("/api/models")()
            confirm(seen, refused(401, 403) & NAMED)
    with story.then("nor one for the administrator, signed by the platform's key for tenants"):
        claims = {"iss": "management.inference-in-a-box", "tenant": "admin", "isAdmin": True}
        assert claims_of("tenant-a", **claims)["iss"] == claims["iss"]
        for name in (forger._signed("administrator by claim", **claims), "super-admin-token"):
            confirm(management.holding(name).get("/api/admin/system")(), refused(403) & NAMED)


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


@scenario("MGT-08", needs=(*NEEDS, "models"), sabotage="management.foreign-issuer", seconds=4)
@pytest.mark.parametrize("how", ["query", "body", "name"])
def test_a_tenant_acts_in_its_own_namespace_only(how, management, own_model, kube, story):
    """Whatever a tenant writes into query, body or name, it acts in its own namespace, and nobody else's changes."""
    mine = management.user("tenant-a")
    theirs = own_model("tenant-b")
    with story.given("a model of tenant B, which tenant B can see"):
        confirm(management.user("tenant-b").get(f"/api/models/{theirs.name}")(), answered(200))
    with story.then("tenant A can neither see, publish, change nor remove it"):
        for call in tricks(how, mine, theirs.name):
            confirm(call(), refused(400, 403, 404) & NAMED)
    with story.then("and nothing was made for it, anywhere"):
        assert not (found := leftovers(kube, "tenant-b", theirs.name)), found
        assert not (found := leftovers(kube, "tenant-a", theirs.name)), found
    with story.then("its list shows its own models only"):
        names = body_json(
            "models", that("tenant A's", lambda all_: {each["namespace"] for each in all_} == {"tenant-a"})
        )
        confirm(mine.get("/api/models")(), answered(200) & names)


def tricks(how: str, mine, name: str) -> list[Call]:
    """Ways of pointing at tenant B's model."""
    if how == "query":
        path = f"/api/models/{name}"
        queries = ("?namespace=tenant-b", "?namespace=tenant-a&namespace=tenant-b", "?namespace=TENANT-B")
        reads = [mine.get(path + query) for query in queries]
        return [
            *reads,
            mine.call("DELETE", f"{path}?namespace=tenant-b"),
            mine.call("DELETE", f"{path}/publish?namespace=tenant-b"),
            mine.publish(name, "?namespace=tenant-b"),
            mine.get("/api/models?namespace=tenant-b"),
            mine.get("/api/published-models?namespace=tenant-b"),
        ]
    if how == "body":
        model = {"name": "stolen", "framework": "sklearn", "storageUri": "gs://bucket/model", "namespace": "tenant-b"}
        test = {"modelName": name, "namespace": "tenant-b", "inputData": {}}
        return [
            mine.publish(name, tenantId="tenant-b"),
            mine.publish(MODEL, tenantId="tenant-b"),
            mine.call("POST", "/api/models", model),
            mine.call("POST", "/api/publish/test/execute", test),
        ]
    odd = (f"..%2f..%2fnamespaces%2ftenant-b%2f{name}", f"tenant-b%2f{name}", f"tenant-b.{name}", f"{name}%00", name)
    return [mine.get(f"/api/models/{each}") for each in odd] + [mine.publish(each) for each in odd]
