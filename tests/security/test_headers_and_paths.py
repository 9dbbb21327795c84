"""What a client writes into headers, methods and paths: none of it says who calls or opens what is closed."""

from fixtures.gateway import Gateway
from fixtures.limits import LimitedFactory, await_room_in_minute
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import (
    Check,
    answered,
    header,
    matches,
    no_header,
    one_of,
    refused,
    served_by,
    that,
)
from inferencebox.platform import Platform
from inferencebox.probes.http import Call, Observation
from inferencebox.waiting import consistently, eventually

INVALID = refused(401, by="jwt", at="tier-1")
NOT_YOURS = refused(403, by="rbac", at="tier-1")
ECHO = ("x-stub-echo", "1")


def received(seen: Observation, name: str) -> list[str]:
    """The values of a header as the model got them, from its echo."""
    return [value for each, value in seen.json()["headers"] if each.lower() == name]


def sees(**headers: str) -> Check:
    """The model got each of these headers exactly once, with this value."""

    def reason(seen: Observation) -> str | None:
        for name, value in headers.items():
            if (got := received(seen, name.replace("_", "-"))) != [value]:
                return f"wanted the model to get {name.replace('_', '-')}: {value} once, it got {got}"
        return None

    return Check("the model gets " + ", ".join(f"{n.replace('_', '-')}={v}" for n, v in headers.items()), reason)


@scenario(
    "SEC-09",
    needs=("gateway.jwt", "ratelimit", "models"),
    sabotage=("headers.client-trusted", "limits.by-client-header"),
    seconds=8,
)
def test_the_tenant_is_the_tokens_not_the_headers(
    gateway: Gateway, limited: LimitedFactory, tenant_a: Tenant, tenant_b: Tenant, story: Story
) -> None:
    """x-tenant may name another tenant: the token's claim decides, whose model it is and whose limit is used up."""
    as_b = (("x-tenant", "tenant-b"),)
    with story.given("an entrance that lets each tenant ask three times a minute"):
        entrance = limited("strict", tenant_requests_per_minute=3)
    with story.when("A's token says x-tenant: tenant-b at A's model: it is A's request, and A's model is told so"):
        told = gateway.predict(tenant_a.model, tenant_a.token, headers=(*as_b, ECHO))
        eventually(told, answered(200) & served_by(tenant_a.model) & sees(x_tenant="tenant-a"))
    with story.when("A's token says x-tenant: tenant-b at B's model: it is closed, and B's model never sees it"):
        at_b = gateway.get(f"/v1/models/{tenant_b.model.name}", tenant_a.token, headers=as_b)
        seen = consistently(at_b, NOT_YOURS, seconds=0)
        assert not tenant_b.model.reached_by([seen]), "the refused request reached B's model"
    with story.when("A asks in B's name until the limit: it is A's bucket that runs empty"):
        await_room_in_minute(8)
        own = entrance.gateway.get(f"/v1/models/{tenant_a.model.name}", tenant_a.token)
        spent = [own.with_(headers=as_b)() for _ in range(3)]
        assert not (why := next((w for s in spent if (w := answered(200)(s))), "")), f"within the limit: {why}"
        for call in (own.with_(headers=as_b), own):
            consistently(call, refused(429, by="ratelimit", at="tier-1"), seconds=0)
    with story.then("and B's is untouched: B has its three"):
        b = entrance.gateway.get(f"/v1/models/{tenant_b.model.name}", tenant_b.token)
        got = [b() for _ in range(3)]
        assert not (why := next((w for s in got if (w := (answered(200) & served_by(tenant_b.model))(s))), "")), why
        story.note(
            "X-RateLimit-Remaining of B", ", ".join(each.headers.get("x-ratelimit-remaining", "-") for each in got)
        )


@scenario("SEC-10", needs=("gateway.jwt", "models"), sabotage="headers.client-trusted", seconds=1)
def test_nobody_can_say_who_they_are(gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, story: Story) -> None:
    """x-jwt-tenant and x-jwt-sub from the client, even doubled, are replaced by the claims, and open nothing."""
    spoofs = {
        "plain": (("x-jwt-tenant", "tenant-b"), ("x-jwt-sub", "root")),
        "twice": (
            ("x-jwt-tenant", "tenant-b"),
            ("x-jwt-tenant", "tenant-c"),
            ("x-jwt-sub", "root"),
            ("x-jwt-sub", "admin"),
        ),
        "in other letters": (("X-JWT-Tenant", "tenant-b"), ("X-Jwt-Sub", "root"), ("x-JWT-tenant", "tenant-c")),
        "empty": (("x-jwt-tenant", ""), ("x-jwt-sub", "")),
        "named hop-by-hop": (("Connection", "x-jwt-tenant, x-jwt-sub"), ("x-jwt-tenant", "tenant-b")),
    }
    mine = sees(x_jwt_tenant="tenant-a", x_jwt_sub="user-a", x_tenant="tenant-a")
    for name, headers in spoofs.items():
        with story.when(f"A sends them {name}: A's model is told that it is A"):
            call = gateway.predict(tenant_a.model, tenant_a.token, headers=(*headers, ECHO))
            eventually(call.called(f"A with the headers {name}"), answered(200) & served_by(tenant_a.model) & mine)
    with story.when("they are written with underscores, which some servers take for the same: refused"):
        call = gateway.predict(tenant_a.model, tenant_a.token, headers=(("x_jwt_tenant", "tenant-b"), ECHO))
        consistently(call, answered(400), seconds=0)
    with story.when("B sends A's name at A's model: closed all the same, and A's model never sees it"):
        as_a = (("x-jwt-tenant", "tenant-a"), ("X-JWT-Sub", "user-a"), ("x-tenant", "tenant-a"))
        call = gateway.predict(tenant_a.model, tenant_b.token, headers=as_a)
        refusals = [consistently(call, NOT_YOURS, seconds=0), consistently(call.with_(token=None), INVALID, seconds=0)]
        assert not tenant_a.model.reached_by(refusals), "a refused request reached A's model"


@scenario("SEC-13", needs=("gateway.jwt", "models"), sabotage="jwt.claims-not-forwarded", seconds=1)
def test_the_model_is_told_who_asks(gateway: Gateway, tenants: tuple[Tenant, ...], story: Story) -> None:
    """A model learns who asks from the gateway: subject and tenant of the token, each once."""
    for tenant in tenants:
        with story.when(f"{tenant.user} asks {tenant.model}, which tells back what it got"):
            call = gateway.predict(tenant.model, tenant.token, headers=(ECHO,))
            who = sees(x_jwt_sub=tenant.user, x_jwt_tenant=tenant.name)
            eventually(call, answered(200) & served_by(tenant.model) & who, streak=2)


@scenario("SEC-21", needs=("gateway.jwt", "models"), sabotage="authz.methods-any", seconds=1)
def test_a_client_can_ask_but_not_change(gateway: Gateway, tenant_a: Tenant, story: Story) -> None:
    """With a valid token a client may read and ask its model; DELETE, PUT, PATCH and all else is forbidden."""
    path = f"/v1/models/{tenant_a.model.name}"
    with story.given("the same token may read the model and ask it"):
        eventually(gateway.get(path, tenant_a.token), answered(200) & served_by(tenant_a.model))
        asked = eventually(gateway.predict(tenant_a.model, tenant_a.token), answered(200) & served_by(tenant_a.model))
        assert tenant_a.model.reached_by([asked]), f"{tenant_a.model} does not count what it answers"
    refusals = []
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE"):
        with story.when(f"it tries to {method} the model"):
            for where in (path, f"{path}:predict"):
                refusals.append(consistently(gateway.call(method, where, tenant_a.token), NOT_YOURS, seconds=0))
    with story.then("the model saw none of it"):
        assert not (arrived := tenant_a.model.reached_by(refusals)), f"it reached the model: {arrived[0]}"


def same_path(model: str) -> tuple[str, ...]:
    """Other spellings of a model's path that mean just that path."""
    return (
        f"//v1/models/{model}",
        f"/v1//models///{model}",
        f"/./v1/models/./{model}",
        f"/x/../v1/models/{model}",
        f"/tokens/../v1/models/{model}",
        f"/v1/models/sklearn-iris/../{model}",
        f"/%2e/v1/models/{model}",
        f"/v1/models/%2e%2e/models/{model}",
        f"/v1/models/x/%2E./{model}",
        f"/v1/models/%{ord(model[0]):x}{model[1:]}",
        f"http://localhost/v1/models/{model}",
        f"/v1/models/{model}?/../sklearn-iris",
    )


def odd_path(model: str) -> tuple[str, ...]:
    """Spellings that mean nothing, or that some servers take for the model's path."""
    return (
        f"/v1/models/{model};x=y",
        f"/v1/models;x=y/{model}",
        f"/v1/models/..;/models/{model}",
        f"/V1/Models/{model}",
        f"/v1/models/{model.upper()}",
        f"/v1/models/{model}/",
        f"/v1/models/{model}/.",
        f"/v1/models/{model}%20",
        f"/v1/models/{model}%00",
        f"/v1/models/{model}%3Apredict",
        f"/v1/models/{model}#/../sklearn-iris",
        f"/v1/models%2f{model}",
        f"/v1%2Fmodels%2F{model}",
        f"/v1/models/sklearn-iris/..%2f{model}",
        f"/v1/models/sklearn-iris%2f..%2f{model}",
        f"/v1/models/sklearn-iris/%252e%252e/{model}",
        f"\\v1\\models\\{model}",
        f"/v1/models\\{model}",
        f"/v1/models/%c0%ae%c0%ae/models/{model}",
        f"/v1/models/{model}:predict/../{model}",
        f"http://{model}/v1/models/{model}",
        f"/health/..;/v1/models/{model}",
        f"/.{model}",
        f"/v2/models/{model}/",
        f"/v2/models/{model}/ready;/",
    )


def trick_headers(path: str, predictor: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Headers that some proxies take for the path, the host or who is asking."""
    return (
        (("x-original-url", path),),
        (("x-rewrite-url", path),),
        (("x-envoy-original-path", path),),
        (("x-ai-eg-original-path", path),),
        (("x-forwarded-prefix", path), ("x-forwarded-uri", path)),
        (("x-forwarded-host", predictor), ("x-original-host", predictor)),
        (("x-ai-eg-model", "tensorflow-mnist"), ("x-tenant", "tenant-b")),
        (("x-http-method-override", "GET"), ("x-original-method", "GET")),
    )


@scenario("SEC-22", needs=("gateway.jwt", "models"), sabotage="paths.raw", seconds=4)
def test_no_spelling_of_a_path_gets_around_the_guard(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, story: Story
) -> None:
    """However a model's path is written or smuggled in, nobody gets in whom the plain path would not let in."""
    model = tenant_b.model
    path = f"/v1/models/{model.name}"
    sent: list[Observation] = []
    with story.given("B reads its model by the plain path"):
        good = eventually(gateway.get(path, tenant_b.token), answered(200) & served_by(model), streak=2)
        assert model.reached_by([good]), f"{model} does not count what it answers"
    with story.when("the path is written in another way that means the same: it is judged like the plain one"):
        for spelling in same_path(model.name):
            call = gateway.get(spelling).called(spelling)
            sent.append(consistently(call, INVALID, seconds=0))
            sent.append(consistently(call.with_(token=tenant_a.token), NOT_YOURS, seconds=0))
            eventually(call.with_(token=tenant_b.token), answered(200) & served_by(model))
    closed = that(
        "no 200 and nothing from B's model", lambda seen: seen.status != 200 and served_by(model)(seen) is not None
    )
    with story.when("the path is odd: whatever it is taken for, it is not B's model"):
        for spelling in odd_path(model.name):
            for token in (None, tenant_a.token):
                call = gateway.get(spelling, token).called(
                    f"{spelling} {'with A token' if token else 'without a token'}"
                )
                sent.append(consistently(call, closed, seconds=0))
                sent.append(consistently(call.with_(method="POST", json={"instances": []}), closed, seconds=0))
    with story.when("a header names the path, the host or another caller"):
        own = f"/v1/models/{tenant_a.model.name}"
        for headers in trick_headers(path, model.predictor):
            for asked in (own, "/", path):
                for token in (None, tenant_a.token):
                    call = gateway.get(asked, token, headers=headers).called(f"{asked} with {headers[0][0]}")
                    welcome = asked == "/" or (asked == own and token)
                    sent.append(call() if welcome else consistently(call, closed, seconds=0))
        for host in (
            model.predictor,
            f"localhost@{model.predictor}",
            f"{model.service}",
            "tenant-b.inference-in-a-box",
        ):
            for token in (None, tenant_a.token):
                sent.append(consistently(gateway.at(host).get(path, token).called(f"at {host}"), closed, seconds=0))
    with story.then("none of it reached B's model"):
        assert not (arrived := model.reached_by(sent)), f"it reached {model}: {arrived[0]}"
        assert not (why := next((f"{s.asked}: {s}" for s in sent if served_by(model)(s) is None), "")), why


SECURITY_HEADERS = (
    header("x-content-type-options", "nosniff")
    & header("x-frame-options", "DENY")
    & header(
        "referrer-policy", one_of("no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin")
    )
    & header("strict-transport-security", matches(r"^max-age=[1-9]\d{6,}"))
)


@scenario(
    "SEC-30",
    needs=("gateway.jwt", "gateway.tls", "ratelimit", "models"),
    sabotage="response-headers.removed",
    seconds=6,
)
def test_every_reply_tells_browsers_to_be_careful(
    platform: Platform,
    gateway: Gateway,
    secure_gateway: Gateway,
    limited: LimitedFactory,
    tenant_a: Tenant,
    tenant_b: Tenant,
    story: Story,
) -> None:
    """Every reply, good or bad, has the headers that keep browsers from guessing types, framing and plain HTTP."""
    path = f"/v1/models/{tenant_a.model.name}"
    read = gateway.get(path, tenant_a.token)
    entrance = limited("strict", tenant_requests_per_minute=1)
    await_room_in_minute(5)
    over = entrance.gateway.get(path, tenant_a.token)
    over()
    replies = {
        "200 from the model": (read, answered(200)),
        "200 over TLS": (secure_gateway.get(path, tenant_a.token, ca=platform.edge_ca, sni="localhost"), answered(200)),
        "401 without a token": (gateway.get(path), INVALID),
        "403 with another tenant's": (gateway.get(path, tenant_b.token), NOT_YOURS),
        "404 for an unknown model": (gateway.get("/v1/models/nobodys-model", tenant_a.token), answered(404)),
        "404 for an unknown host": (gateway.at("unknown.example").get("/"), answered(404)),
        "429 over the limit": (over, refused(429, by="ratelimit", at="tier-1")),
    }
    for title, (call, status) in replies.items():
        with story.then(f"{title} has them"):
            eventually(call.called(title), status & SECURITY_HEADERS, within=5)


LISTED = ("https://console.inference-in-a-box", "http://localhost:3000")
OTHERS = (
    "https://evil.example",
    "null",
    "http://console.inference-in-a-box",
    "https://console.inference-in-a-box.evil.example",
    "https://evil-console.inference-in-a-box",
    "https://console.inference-in-a-box:8443",
    "http://localhost:3001",
)
NO_LICENCE = no_header("access-control-allow-origin")


def licence(origin: str) -> Check:
    """The browser is told that this origin, and not any, may read the reply with credentials."""
    return header("access-control-allow-origin", origin) & header("access-control-allow-credentials", "true")


@scenario("SEC-31", needs=("gateway.cors", "gateway.jwt", "models"), sabotage="cors.any-origin", seconds=2)
def test_only_listed_pages_may_call(gateway: Gateway, tenant_a: Tenant, story: Story) -> None:
    """A browser's preflight needs no token; listed pages may call, all others get no licence, and nobody gets `*`."""
    doors = {
        "a model": ("POST", f"/v1/models/{tenant_a.model.name}:predict"),
        "the OpenAI entrance": ("POST", "/v1/chat/completions"),
        "the list of models": ("GET", "/v1/models"),
        "an unknown model": ("GET", "/v1/models/nobodys-model"),
        "the default backend": ("GET", "/"),
    }

    def preflight(method: str, path: str, origin: str) -> Call:
        headers = (
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "authorization,content-type"),
        )
        return gateway.call("OPTIONS", path, headers=headers).called(f"preflight of {origin} for {method} {path}")

    for door, (method, path) in doors.items():
        with story.when(f"a page of a listed origin asks whether it may call {door}, without a token: it may"):
            for origin in LISTED:
                allowed = header("access-control-allow-methods", matches(rf"\b{method}\b"))
                eventually(preflight(method, path, origin), answered(200, 204) & licence(origin) & allowed)
        with story.when(f"a page of any other origin asks about {door}: it gets no licence"):
            for origin in OTHERS:
                consistently(preflight(method, path, origin), NO_LICENCE, seconds=0)
    with story.when("the calls themselves follow: only the listed page may read the reply"):
        read = gateway.get(f"/v1/models/{tenant_a.model.name}", tenant_a.token)
        for origin in LISTED:
            eventually(read.with_(headers=(("Origin", origin),)), answered(200) & licence(origin))
        for origin in OTHERS:
            consistently(read.with_(headers=(("Origin", origin),)), answered(200) & NO_LICENCE, seconds=0)
    with story.then("a listed page without a token is told why, and learns nothing else"):
        refused_page = read.with_(headers=(("Origin", LISTED[0]),), token=None)
        consistently(refused_page, INVALID & licence(LISTED[0]), seconds=0)
