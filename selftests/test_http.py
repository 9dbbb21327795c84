"""The HTTP probe sends exactly what it is told, and tells exactly what came."""

import json
import subprocess
import time
from collections.abc import Sequence

import httpx
import pytest
from loopback import closed_port, reply, serving

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint, Workload
from inferencebox.probes.http import Call, Observation, Transport, author, curl_argv, explain, read_curl

TRICKS = [
    "/v1//models/../models/./iris:predict",
    "/v1/%2e%2e/%2E%2E/models",
    "/v1/models;x=1/iris:predict",
    "//evil/v1/models?a=//b/../c",
    "/V1/Models/IRIS%3Apredict?",
    "/%zz/\\back|pipe",
]
POD = Workload("tenant-a", "client-0", "client", "v1", "10.0.0.1")


class HereAsPod:
    """A platform whose replicas are this machine."""

    def run_in(self, workload: Workload, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30):  # type: ignore[no-untyped-def]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False)


def both_ways(call: Call) -> list[Observation]:
    return [call(), call.within(HereAsPod(), POD)()]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", TRICKS)
def test_the_path_goes_out_byte_for_byte_from_here_and_from_a_pod(path: str) -> None:
    with serving(reply()) as server:
        both_ways(Call("GET", server.endpoint, path))
    assert [request.split(b"\r\n")[0] for request in server.requests] == [f"GET {path} HTTP/1.1".encode()] * 2


def test_headers_keep_order_case_and_number_from_here_and_from_a_pod() -> None:
    pairs = [("X-JWT-Tenant", "a"), ("x-jwt-tenant", "b"), ("x-empty", ""), ("X-Jwt-Tenant", "c")]
    with serving(reply()) as server:
        both_ways(Call("GET", server.endpoint, "/", headers=pairs))
    for request in server.requests:
        lines = request.decode().split("\r\n")
        sent = [line.split(":", 1) for line in lines if line.lower().startswith(("x-jwt", "x-empty"))]
        assert [(name, value.strip()) for name, value in sent] == pairs


def test_body_token_and_host_are_sent() -> None:
    with serving(reply()) as server:
        call = Call("POST", server.endpoint, "/p", json={"instances": [[1.5]]}, token="abc", host="model.example")
        both_ways(call)
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert json.loads(body) == {"instances": [[1.5]]}
        assert "host: model.example" in lines
        assert "authorization: bearer abc" in lines
        assert "content-type: application/json" in lines
        assert f"content-length: {len(body)}" in lines


def test_a_header_of_ones_own_replaces_the_default() -> None:
    with serving(reply()) as server:
        Call("POST", server.endpoint, "/", json=1, headers={"Content-Type": "text/plain", "Host": "h"})()
    text = server.requests[0].decode().lower()
    assert text.count("content-type:") == text.count("host:") == 1
    assert "content-type: text/plain" in text


def test_each_sending_has_a_request_id_of_its_own_unless_given() -> None:
    with serving(reply()) as server:
        call = Call("GET", server.endpoint, "/")
        first, second = call(), call()
        given = call.adding(("X-Request-Id", "mine"))()
    assert first.request_id != second.request_id
    assert given.request_id == "mine"
    for seen, request in zip([first, second, given], server.requests, strict=True):
        assert seen.request_id in request.decode()


def test_the_reply_is_told_alike_from_here_and_from_a_pod() -> None:
    answer = reply(404, b'{"error": "no"}', x_pod="iris-v1-0", X_Two="1")
    with serving(answer) as server:
        for seen in both_ways(Call("GET", server.endpoint, "/")):
            assert (seen.status, seen.json(), seen.pod, seen.headers["x-two"]) == (
                404,
                {"error": "no"},
                "iris-v1-0",
                "1",
            )
            assert seen.tier == "model"
            assert seen.cause is None
            assert seen.error is None


def test_a_body_with_the_look_of_curl_facts_is_not_mistaken() -> None:
    body = b'\n--inferencebox-curl--\n{"http_code": 500}'
    with serving(reply(200, body)) as server:
        assert [seen.body for seen in both_ways(Call("GET", server.endpoint, "/"))] == [body, body]


def test_connections_are_kept_unless_a_fresh_one_is_wanted() -> None:
    with serving(reply()) as server:
        call = Call("GET", server.endpoint, "/")
        for _ in range(3):
            call()
        assert server.connections == 1
        call.with_(fresh=True)()
        assert server.connections == 2


def test_nobody_listening_is_refused() -> None:
    for seen in both_ways(Call("GET", closed_port(), "/")):
        assert seen.error is Transport.REFUSED
        assert seen.status is None
        assert str(seen).startswith("no reply: refused")


def test_a_dropped_connection_is_reset() -> None:
    with serving(lambda request: None) as server:
        assert {seen.error for seen in both_ways(Call("GET", server.endpoint, "/"))} == {Transport.RESET}


def test_a_reply_that_breaks_off_is_closed_and_tells_how_far_it_came() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
    with serving(half, keep_alive=False) as server:
        for seen in both_ways(Call("GET", server.endpoint, "/", timeout=3)):
            assert (seen.error, seen.status, seen.body) == (Transport.CLOSED, 200, b"half")


def test_silence_is_a_timeout() -> None:
    def slow(request: bytes) -> bytes:
        time.sleep(1)
        return reply()

    with serving(slow) as server:
        for seen in both_ways(Call("GET", server.endpoint, "/", timeout=0.2)):
            assert seen.error is Transport.TIMEOUT
            assert seen.elapsed < 0.9


def test_an_unknown_name_is_dns() -> None:
    assert Call("GET", Endpoint("http", "no-such-name.invalid", 80), "/", timeout=5)().error is Transport.DNS


def test_plain_text_where_tls_is_expected_is_tls() -> None:
    with serving(reply()) as server:
        secure = Call("GET", Endpoint("https", "127.0.0.1", server.port), "/", insecure=True, timeout=2)
        assert {seen.error for seen in both_ways(secure)} == {Transport.TLS}


def test_only_transport_failures_are_sent_again() -> None:
    answers = iter([None, None, reply(503), reply(200)])
    with serving(lambda request: next(answers)) as server:
        assert Call("GET", server.endpoint, "/", retry_transport=5)().status == 503
        assert len(server.requests) == 3


def test_a_request_that_is_no_http_is_the_authors_mistake() -> None:
    with serving(reply()) as server, pytest.raises(ValueError, match="cannot be sent"):
        Call("GET", server.endpoint, "/", headers=[("bad name", "x")])()


CAUSES = [
    (401, {}, "Jwt is missing", "jwt"),
    (401, {}, "Jwt is expired", "jwt"),
    (401, {}, "Jwt not yet valid", "jwt"),
    (401, {}, "Jwt verification fails", "jwt"),
    (401, {}, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", "jwt"),
    (401, {}, "Jwks doesn't have key to match kid or alg from Jwt", "jwt"),
    (401, {}, '{"error": {"message": "Jwt is missing", "type": "x"}}', "jwt"),
    (403, {}, "Audiences in Jwt are not allowed", "audience"),
    (403, {}, "RBAC: access denied", "rbac"),
    (403, {}, "go away", None),
    (429, {"x-envoy-ratelimited": "true"}, "", "ratelimit"),
    (429, {}, "local_rate_limited", "ratelimit"),
    (429, {}, "", None),
    (404, {}, "", "route"),
    (404, {}, "No matching route found. It is likely that the model is not configured", "route"),
    (404, {}, '{"error": "Model with name x does not exist."}', None),
    (404, {"x-pod": "iris-0"}, "", None),
    (503, {"x-envoy-overloaded": "true"}, "upstream connect error or disconnect", "overload"),
    (503, {}, "upstream connect error or disconnect/reset before headers. reset reason: overflow", "overload"),
    (503, {}, "no healthy upstream", "no-healthy-upstream"),
    (503, {}, "upstream connect error or disconnect/reset before headers. reset reason: x", "upstream-connect"),
    (504, {}, "upstream request timeout", "timeout"),
    (401, {}, "Client authentication failed.", "api-key"),
    (500, {}, "", "no-backend"),
    (200, {"access-control-allow-methods": "POST"}, "", "cors"),
    (200, {}, "RBAC: access denied", None),
]


@pytest.mark.parametrize(("status", "headers", "body", "cause"), CAUSES)
def test_the_cause_is_read_from_the_reply(status: int, headers: dict[str, str], body: str, cause: str | None) -> None:
    assert explain(status, httpx.Headers(headers), body.encode()) == cause


def test_the_writer_of_a_reply_is_known_by_its_headers() -> None:
    assert author(httpx.Headers({})) == "tier-1"
    assert author(httpx.Headers({"x-envoy-upstream-service-time": "3"})) == "tier-2"
    assert author(httpx.Headers({"server": "istio-envoy"})) == "tier-2"
    assert author(httpx.Headers({"x-envoy-upstream-service-time": "3", "x-pod": "p"})) == "model"


def test_what_a_person_could_type_hides_secrets() -> None:
    call = Call(
        "POST",
        Endpoint("https", "127.0.0.1", 8443),
        "/v1?access_token=s3cret&x=1",
        headers=[("X-API-Key", "s3cret"), ("x-tenant", "it's b")],
        token="s3cret",
        json={"a": 1},
        sni="api.example",
    )
    shown = call.as_curl()
    assert "s3cret" not in shown + repr(call) + str(call)
    assert '"authorization: Bearer $TOKEN"' in shown
    assert '"X-API-Key: $API_KEY"' in shown
    assert "--connect-to api.example:8443:127.0.0.1:8443" in shown


def test_evidence_gets_every_sending_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(evidence, "exchange", lambda *parts: told.append(repr(parts)))
    with serving(reply(401, b"Jwt is expired")) as server:
        call = Call("GET", server.endpoint, "/", token="s3cret", headers={"x-api-key": "s3cret"})
        call.called("an expired token")()
        call.with_(quiet=True)()
    assert len(told) == 1
    assert "an expired token" in told[0]
    assert "401 by jwt at tier-1" in told[0]
    assert "s3cret" not in told[0]


def test_curl_missing_in_the_pod_is_a_problem_of_the_environment() -> None:
    with pytest.raises(SetupProblem, match="curl"):
        read_curl(127, b"", b"sh: curl: not found")


def test_interim_replies_are_not_taken_for_the_reply() -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nx-pod: p\r\n\r\n"
    facts = json.dumps({"http_code": 201, "size_header": len(head), "time_total": 0.5})
    seen = read_curl(0, head + b"body\n--inferencebox-curl--\n" + facts.encode(), b"")
    assert (seen.status, seen.pod, seen.body, seen.elapsed) == (201, "p", b"body", 0.5)


def test_curl_sends_to_the_named_server_at_the_given_address() -> None:
    argv = curl_argv(Call("GET", Endpoint("https", "10.0.0.7", 443), "/x", sni="a.example", insecure=True), "id")
    assert argv[-1] == "https://a.example:443/"
    assert argv[argv.index("--connect-to") + 1] == "a.example:443:10.0.0.7:443"


def test_a_copy_changes_only_what_is_named() -> None:
    call = Call("GET", Endpoint("http", "h", 1), "/", headers={"a": "1"}).called("first")
    assert call.with_(path="/x").pairs == (("a", "1"),)
    assert str(call) == "first"
    assert call.with_(method="POST").method == "POST"
