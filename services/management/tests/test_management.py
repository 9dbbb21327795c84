"""The service's own logic, without a cluster: configurations, keys, limits, commands, destinations, documents."""

import asyncio
import ipaddress
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from management import keys
from management.api.publishing import shown
from management.app import create_app
from management.console import parse
from management.documentation import documentation
from management.errors import ApiError
from management.kube import AI_BACKENDS, BACKENDS, PUBLICATIONS, SECRETS, Kube, KubeDown, KubeError, Resource
from management.limits import LoginAttempts, UserLimits
from management.outbound import Outbound
from management.publication import ACTIVE, Publication, anchor, everything, key_secret, objects
from management.publisher import Publisher
from management.register import Register, clash
from management.schemas import ConfigChange, ConnectionSettings, PublishConfig
from management.services import Services
from management.settings import Settings
from management.tokens import KNOWN_SECONDS, Counter, GatewayCounters, Process, Reading, Untold, added

SETTINGS = Settings(gateway_url="http://10.1.2.3")


def wished(model: str = "iris", kind: str = "traditional", **config: object) -> Publication:
    whole = {"tenantId": "tenant-a", **config}
    return Publication.wished("tenant-a", model, kind, PublishConfig.model_validate(whole), SETTINGS)


def active(model: str = "iris", **more: object) -> Publication:
    return replace(wished(model), phase=ACTIVE, uid=model, created="2026-01-01T00:00:00Z", **more)


# --- configurations


@pytest.mark.parametrize(
    "wrong",
    [
        {"publicHostname": "https://x.y"},
        {"publicHostname": "undotted"},
        {"publicHostname": "a..b"},
        {"publicHostname": "a--b.c"},
        {"publicHostname": "-a.b"},
        {"publicHostname": "a.b/c"},
        {"externalPath": "x"},
        {"externalPath": "/a/../b"},
        {"externalPath": "//"},
        {"externalPath": "/"},
        {"rateLimiting": {"requestsPerMinute": 10, "requestsPerHour": 5}},
        {"authentication": {"requireApiKey": False}},
        {"surprise": 1},
    ],
)
def test_what_is_no_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PublishConfig.model_validate({"tenantId": "tenant-a", **wrong})


def test_defaults_of_both_kinds() -> None:
    assert wished().address == ("api.router.inference-in-a-box", "/published/models/iris/predict")
    assert wished("llm", "openai").path == "/v1/models/llm"


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("tenant-b.inference-in-a-box", "/x"),
        ("console.inference-in-a-box", "/x"),
        ("somewhere.example", "/x"),
        ("a.inference-in-a-box", "/v1/models/other"),
        ("a.inference-in-a-box", "/API/x"),
    ],
)
def test_addresses_of_the_platforms_own_cannot_be_had(host: str, path: str) -> None:
    publisher = Publisher(None, None, SETTINGS)  # type: ignore[arg-type]  # only the address is looked at
    with pytest.raises(ApiError) as refusal:
        publisher._check_address(wished(publicHostname=host, externalPath=path))
    assert refusal.value.status == 400


def test_of_two_with_one_address_exactly_one_is_older() -> None:
    one, other = active("one", path="/p"), active("two", path="/p")
    assert (clash(one, [one, other]) is None) != (clash(other, [one, other]) is None)


# --- objects


@pytest.mark.parametrize("kind", ["traditional", "openai"])
def test_everything_that_is_made_is_known_to_be_removed(kind: str) -> None:
    publication = replace(wished(kind=kind), uid="u")
    made = [(each.resource, each.document["metadata"]["namespace"], each.document["metadata"]["name"])
            for each in objects(publication, documentation(publication, SETTINGS), SETTINGS)]  # fmt: skip
    assert set(made) <= set(everything(publication, SETTINGS))


def test_neither_key_nor_token_goes_on_to_the_model() -> None:
    (route, *_) = objects(wished(), documentation(wished(), SETTINGS), SETTINGS)
    removed = route.document["spec"]["rules"][0]["filters"][0]["requestHeaderModifier"]["remove"]
    assert {"authorization", "x-api-key"} <= set(removed)
    assert route.document["spec"]["rules"][0]["matches"][0]["path"]["type"] == "Exact"


# --- keys


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept() -> None:
    key, record = keys.new_key()
    assert len(key) == len(keys.PREFIX) + 43
    secret = json.dumps(key_secret(wished(), [record], SETTINGS))
    assert key not in secret
    assert keys.of_secret(key_secret(wished(), [record], SETTINGS)) == [record]


def test_a_rotated_key_ends_after_its_grace_and_no_later_by_a_second_rotation() -> None:
    first = keys.new_key()[1]
    once = keys.rotated([first], keys.new_key()[1], grace=60)
    twice = keys.rotated(once, keys.new_key()[1], grace=600)
    assert [record.good(time.time()) for record in twice] == [True, True, True]
    assert twice[2].expires == once[1].expires
    assert not twice[2].good(time.time() + 61)


def registered(publication: Publication) -> tuple[Register, str]:
    register = Register(None, SETTINGS)  # type: ignore[arg-type]  # nothing is asked of the API
    key, record = keys.new_key()
    register.publications[publication.id] = publication
    register.learn_keys(key_secret(publication, [record], SETTINGS))
    return register, key


def test_a_key_opens_its_own_address_only() -> None:
    register, key = registered(active())
    found = register.by_key(key)
    assert found is not None
    assert register.opens(found, *active().address)
    assert not register.opens(found, "api.router.inference-in-a-box", "/published/models/other/predict")
    assert register.by_key(key + "x") is None


def test_a_key_opens_nothing_until_all_is_there() -> None:
    register, key = registered(wished())
    assert register.by_key(key) is None


def test_what_is_counted_is_shown_before_it_is_written() -> None:
    register, _ = registered(active())
    for _ in range(3):
        register.count(active())
    assert register.usage(active()).total_requests == 3


class AwayKube(Kube):
    def __init__(self) -> None: ...

    async def get(self, *_: object) -> dict[str, object]:
        raise KubeDown("away")


def test_what_cannot_be_written_is_kept() -> None:
    register, _ = registered(active())
    register.kube = AwayKube()
    register.count(active())
    asyncio.run(register.flush())
    assert register.usage(active()).total_requests == 1


# --- tokens

GATEWAY = "10.0.0.1:19001"


def reading(at: float, age: float = 0.0, **tokens: int) -> Reading:
    """What one process of the gateway has counted, by uid."""
    return Reading(time.monotonic() - age, {GATEWAY: Process(at, tokens)})


def language(**more: object) -> Publication:
    return replace(wished("llm", "openai"), phase=ACTIVE, uid="u", created="2026-01-01T00:00:00Z", **more)


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ([20, 20, 60], 60),
        ([20, 5], 25),  # the process started anew
        ([20, None, 30], 50),  # Envoy dropped the counter with its listener
        ([None, 0], 0),
    ],
)
def test_tokens_add_up_however_often_counters_start_anew(told: list[int | None], used: int) -> None:
    total, counters = 0, {}
    for moment, tokens in enumerate(told, start=1):
        here = reading(moment) if tokens is None else reading(moment, u=tokens, another=1000)
        total, counters = added(total, counters, "u", here)
    assert total == used


def test_each_process_of_the_gateway_counts_for_itself() -> None:
    both = Reading(0.0, {"one": Process(1.0, {"u": 5}), "other": Process(1.0, {"u": 7})})
    total, counters = added(0, {}, "u", both)
    gone = Reading(0.0, {"one": Process(2.0, {"u": 6})})
    back = Reading(0.0, {"one": Process(3.0, {"u": 6}), "other": Process(3.0, {"u": 8})})
    assert added(*added(total, counters, "u", gone), "u", back)[0] == 6 + 8


def test_what_was_read_before_changes_nothing() -> None:
    known = {GATEWAY: Counter(20, read_at=10.0)}
    for old in (reading(9.0, u=15), reading(10.0, u=15), reading(9.0)):
        assert added(20, known, "u", old) == (20, known)


def test_tokens_are_told_only_while_somebody_says_how_many_there_are() -> None:
    register, _ = registered(language())
    assert register.usage(language()).tokens_used is None
    register.learn_tokens(reading(1.0))
    assert register.usage(language()).tokens_used == 0
    register.learn_tokens(reading(2.0, u=42))
    assert register.usage(language()).tokens_used == 42
    assert register.usage(active()).tokens_used is None, "a traditional model has none"
    register.learn_tokens(reading(2.0, age=KNOWN_SECONDS + 1, u=42))
    assert register.usage(language()).tokens_used is None


def test_a_model_that_is_published_again_begins_at_nothing() -> None:
    register, _ = registered(language())
    register.learn_tokens(reading(1.0, u=42))
    assert register.usage(replace(language(), uid="v")).tokens_used == 0


class KeepingKube(Kube):
    """Keeps one `PublishedModel`, and takes changes as the API does: merged, and only of the newest version."""

    def __init__(self, publication: Publication) -> None:
        self.writes = 0
        self.document = {
            "metadata": {"name": publication.model, "namespace": publication.namespace, "uid": publication.uid,
                         "resourceVersion": "1"},
            "spec": publication.spec,
        }  # fmt: skip

    async def get(self, *_: object) -> dict[str, object]:
        return json.loads(json.dumps(self.document))  # type: ignore[no-any-return]

    async def patch(self, *place: object, subresource: str = "") -> dict[str, object]:
        change = json.loads(json.dumps(place[-1]))
        meta = self.document["metadata"]
        assert change.pop("metadata") == {"resourceVersion": meta["resourceVersion"]}
        self.document = merged(self.document, change)
        self.writes += 1
        self.document["metadata"]["resourceVersion"] = str(self.writes + 1)
        return await self.get()


def merged(into: dict, change: dict) -> dict:  # type: ignore[type-arg]
    """RFC 7396."""
    whole = dict(into)
    for name, value in change.items():
        if value is None:
            whole.pop(name, None)
        else:
            whole[name] = merged(whole.get(name) or {}, value) if isinstance(value, dict) else value
    return whole


def test_tokens_are_written_once_whoever_reads_them() -> None:
    kube = KeepingKube(language())
    first, second = Register(kube, SETTINGS), Register(kube, SETTINGS)
    for replica in (first, second):
        replica.learn(kube.document)
        replica.learn_tokens(reading(5.0, u=42))
        asyncio.run(replica.flush())
    assert kube.document["status"]["usage"]["tokensUsed"] == 42
    second.learn_tokens(reading(6.0, u=50))
    asyncio.run(second.flush())
    asyncio.run(first.flush())
    assert kube.document["status"]["usage"]["tokensUsed"] == 50
    writes = kube.writes
    for replica in (first, second):
        replica.learn_tokens(reading(7.0, u=50))
        asyncio.run(replica.flush())
    assert kube.writes == writes, "nothing was used, and something was written"


def test_a_restarted_service_goes_on_where_it_was() -> None:
    kube = KeepingKube(language())
    for moment, tokens in enumerate((42, 60, 8), start=1):
        register = Register(kube, SETTINGS)
        register.learn(kube.document)
        register.learn_tokens(reading(float(moment), u=tokens))
        asyncio.run(register.flush())
    assert kube.document["status"]["usage"]["tokensUsed"] == 68


def test_requests_are_written_without_a_word_about_tokens_that_nobody_counted() -> None:
    kube = KeepingKube(language())
    register = Register(kube, SETTINGS)
    register.count(register.learn(kube.document))
    asyncio.run(register.flush())
    assert kube.document["status"]["usage"]["totalRequests"] == 1
    assert "tokensUsed" not in kube.document["status"]["usage"]


@contextmanager
def answering(reply: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Somebody who answers in Prometheus' place; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def vector(*rows: tuple[dict[str, str], str]) -> bytes:
    result = [{"metric": labels, "value": [1795306418.0, value]} for labels, value in rows]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def read_from(status: int, body: bytes, seconds: float = 0.0) -> Reading:
    def reply(request: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        request.send_response(status)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        with suppress(OSError):  # who asked may have gone
            request.wfile.write(body)

    async def read(url: str) -> Reading:
        counters = GatewayCounters(url, lambda _: None)
        try:
            return await counters.read()
        finally:
            await counters.close()

    with answering(reply) as url:
        return asyncio.run(read(url))


def test_a_reading_says_what_each_process_has_counted() -> None:
    told = vector(
        ({"instance": GATEWAY, "publication": "u"}, "42"),
        ({"instance": GATEWAY}, "1795306417.5"),
        ({"instance": "other"}, "1795306416"),
    )
    assert read_from(200, told).processes == {
        GATEWAY: Process(1795306417.5, {"u": 42}),
        "other": Process(1795306416.0, {}),
    }


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, b"", "503"),
        (200, b"<html>", "Expecting value"),
        (200, b"{}", "data"),
        (200, vector(), "watches no gateway"),
        (200, vector(({"instance": GATEWAY, "publication": "u"}, "42"), ({"instance": GATEWAY}, "0")), "reach"),
        (200, vector(({"instance": GATEWAY}, "1795306380")), "reach"),
    ],
)
def test_half_an_answer_is_none(status: int, body: bytes, why: str) -> None:
    with pytest.raises(Untold, match=why):
        read_from(status, body)


def test_nobody_waits_for_a_slow_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("management.tokens.TIMEOUT_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(Untold):
        read_from(200, vector(), seconds=0.6)
    assert time.monotonic() - begun < 5


def test_without_a_prometheus_nobody_is_asked() -> None:
    asyncio.run(asyncio.wait_for(GatewayCounters("", lambda _: None).run(), 1))


# --- limits


def test_a_user_has_so_many_calls_a_minute_and_a_second() -> None:
    limits = UserLimits(per_minute=12, per_second=10)
    first = [limits.take("u", 600.0).allowed for _ in range(11)]
    assert first == [True] * 10 + [False]
    assert [limits.take("u", 601.0).allowed for _ in range(3)] == [True, True, False]
    assert limits.take("v", 601.0).allowed
    assert limits.take("u", 660.0).allowed


def test_guessing_passwords_has_to_wait() -> None:
    logins = LoginAttempts(most=3)
    for moment in (0.0, 1.0, 2.0):
        assert logins.wait("admin", moment) == 0
        logins.failed("admin", moment)
    assert logins.wait("admin", 3.0) > 50
    assert logins.wait("admin", 61.0) == 0


# --- commands, destinations


@pytest.mark.parametrize(
    "text", ["get pods; id", "exec x", "get pods --as admin", "get pods -o jsonpath={}", "get po|sh"]
)
def test_other_commands_are_refused(text: str) -> None:
    with pytest.raises(ApiError):
        parse(text)


def test_a_command_is_read_as_kubectl_reads_it() -> None:
    command = parse("kubectl get svc iris -n tenant-a -o wide")
    assert (command.verb, command.words, command.namespace, command.format) == (
        "get",
        ["svc", "iris"],
        "tenant-a",
        "wide",
    )


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00::1", "0.0.0.0", "100.64.0.1", "224.0.0.1"]
)
def test_inner_addresses_are_no_destination(address: str) -> None:
    outbound = Outbound(SETTINGS)
    gateway = [ipaddress.ip_address("10.1.2.3")]
    with pytest.raises(ApiError) as refusal:
        outbound._judge(ipaddress.ip_address(address), 80, gateway)
    assert refusal.value.status == 403
    outbound._judge(gateway[0], 80, gateway)
    with pytest.raises(ApiError):
        outbound._judge(gateway[0], 19000, gateway)


@pytest.mark.parametrize("host", ["nobody.invalid", "\u0097", "a..b", "x" * 253])
def test_a_host_that_nobody_knows_is_a_mistake_of_the_caller(host: str) -> None:
    with pytest.raises(ApiError) as refusal:
        asyncio.run(Outbound(SETTINGS).custom(ConnectionSettings(host=host), "/", {}, {}))
    assert refusal.value.body["details"] == ["host: no name server knows it"]
    assert refusal.value.status == 400


# --- documents


@pytest.mark.parametrize("kind", ["traditional", "openai"])
def test_the_python_example_is_python_and_holds_no_key(kind: str) -> None:
    told = documentation(wished(kind=kind), SETTINGS)
    compile(told["sdkExamples"]["python"], "example", "exec")
    assert keys.PREFIX not in json.dumps(told)


def test_only_the_first_reply_shows_the_whole_key() -> None:
    register, key = registered(active())
    parts = Services.of(SETTINGS)
    parts.register = register
    assert shown(parts, active(), key).api_key == key
    assert shown(parts, active()).api_key == key[: keys.SHOWN] + "…"


# --- over HTTP, with the Kubernetes API away


@pytest.fixture
def client(tmp_path) -> TestClient:  # type: ignore[no-untyped-def]
    settings = Settings(kube_url="https://127.0.0.1:9", kube_token=tmp_path / "t", kube_ca=tmp_path / "c")
    return TestClient(create_app(settings), raise_server_exceptions=False)


def test_without_kubernetes_everything_says_so(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "degraded"
    assert client.get("/ready").status_code == 503
    assert client.post("/api/validate-api-key", json={"apiKey": "x"}).status_code == 503
    reply = client.post("/api/admin/login", json={"username": "admin", "password": "password"})
    assert (reply.status_code, reply.json()["error"]) == (503, "the Kubernetes API is away for the moment")


def test_pages_and_errors(client: TestClient) -> None:
    assert "text/html" in client.get("/any/where").headers["content-type"]
    assert client.get("/api/none").json() == {"error": "there is no such path"}
    assert client.get("/api/models").status_code == 401
    assert client.get("/static/app.js").headers["x-content-type-options"] == "nosniff"
    wrong = client.post("/api/admin/login", json={"username": 1, "password": {"a": "secret"}})
    assert wrong.status_code == 400
    assert "secret" not in wrong.text


def test_a_body_that_is_too_long_is_not_read(client: TestClient) -> None:
    assert client.post("/api/admin/login", content=b"x" * (1024 * 1024 + 1)).status_code == 413

    def endless():  # type: ignore[no-untyped-def]
        for _ in range(100):
            yield b"x" * 65536

    assert client.post("/api/admin/login", content=endless()).status_code == 413


def test_a_cookie_alone_changes_nothing(client: TestClient) -> None:
    client.cookies.set("session", "a.b.c", path="/api")
    assert client.post("/api/models", json={}).status_code == 403


def test_a_setting_that_is_none_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "management", "serve"], env={"MANAGEMENT_NONSENSE": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, "MANAGEMENT_NONSENSE" in done.stderr, done.stderr.count("\n")) == (2, True, 1)


# --- changing


def test_a_change_that_cannot_be_written_is_refused_with_its_step_and_undone() -> None:
    kube = AsyncMock(**{"all.return_value": []})
    publisher, change = Publisher(kube, Mock(), SETTINGS), ConfigChange.model_validate({"externalPath": "/other"})
    for _ in range(2):  # nor does it stay locked
        kube.replace_spec.side_effect = [KubeError(500, "", "no room"), {}]
        with pytest.raises(ApiError) as refused:
            asyncio.run(publisher.update(wished(), change))
        assert (refused.value.status, "settings" in str(refused.value.details)) == (503, True)
    specs = [call.args[-1] for call in kube.replace_spec.call_args_list]
    assert [spec == wished().spec for spec in specs] == [False, True] * 2


# --- recovery


class PlayedKube:
    """Objects in memory, as the API keeps them; `after_listing` is what happens once claims have been listed."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.kept: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.versions = itertools.count(1)
        self.after_listing: Callable[[], None] = lambda: None
        for document in documents:
            self.put(document)

    def put(self, document: dict[str, Any]) -> None:
        metadata = document["metadata"] | {"resourceVersion": str(next(self.versions))}
        self.kept[document["kind"], metadata["namespace"], metadata["name"]] = document | {"metadata": metadata}

    async def all(self, resource: Resource, namespace: str | None = None, labels: str = "") -> list[dict[str, Any]]:
        found = [each for (kind, *_), each in self.kept.items() if kind == KIND_OF[resource]]
        if resource == PUBLICATIONS:
            self.after_listing()
        return found

    async def find(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        return self.kept.get((KIND_OF[resource], namespace, name))

    async def delete(self, resource: Resource, namespace: str, name: str, unchanged_since: int = 0) -> bool:
        key = KIND_OF.get(resource, resource.plural), namespace, name
        if key not in self.kept or unchanged_since not in (0, int(self.kept[key]["metadata"]["resourceVersion"])):
            return False
        del self.kept[key]
        return True


KIND_OF = {PUBLICATIONS: "PublishedModel", SECRETS: "Secret", BACKENDS: "Backend", AI_BACKENDS: "AIServiceBackend"}


def recovered(kube: PlayedKube) -> set[str]:
    """What kinds are left after the service has looked for what nobody is publishing any more."""
    asyncio.run(Publisher(kube, Mock(), SETTINGS).recover())  # type: ignore[arg-type]  # as much of it as recovery uses
    return {kind for kind, *_ in kube.kept}


def claim(phase: str = "") -> dict[str, Any]:
    return anchor(wished(), SETTINGS.instance) | ({"status": {"phase": phase}} if phase else {})


def test_what_a_killed_service_left_half_published_is_taken_back() -> None:
    assert recovered(PlayedKube(claim(), key_secret(wished(), [], SETTINGS))) == set()


def test_what_became_active_while_recovery_was_looking_stays() -> None:
    kube = PlayedKube(claim(), key_secret(wished(), [], SETTINGS))
    kube.after_listing = lambda: kube.put(claim(ACTIVE))
    assert recovered(kube) == {"PublishedModel", "Secret"}


def test_what_was_published_after_recovery_had_listed_the_claims_stays() -> None:
    kube = PlayedKube()

    def publish() -> None:
        kube.put(claim(ACTIVE))
        kube.put(key_secret(wished(), [], SETTINGS))

    kube.after_listing = publish
    assert recovered(kube) == {"PublishedModel", "Secret"}


def test_a_key_without_a_publication_is_removed() -> None:
    assert recovered(PlayedKube(key_secret(wished(), [], SETTINGS))) == set()
