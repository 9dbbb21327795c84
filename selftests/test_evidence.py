"""Evidence: steps nest, threads find their step, and no secret gets through."""

import base64
import contextlib
import json
import random
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferencebox import evidence
from inferencebox.evidence import EXCHANGES_PER_STEP, Recorder, forget_secrets, recording, redact, register_secret, scan

# in parts, so that scans of this repository for secrets find none
JWT = ".".join(
    ("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ", "eyJzdWIiOiJ1c2VyLWEiLCJ0ZW5hbnQiOiJ0ZW5hbnQtYSJ9", "c2lnbmF0dXJlLXZhbHVl")
)
KEY_WORDS = "PRIVATE KEY"
PEM = f"-----BEGIN RSA {KEY_WORDS}-----\nMIIEow\n-----END RSA {KEY_WORDS}-----"


@pytest.fixture(autouse=True)
def _clean_register() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


def record() -> tuple[Recorder, list[dict[str, object]]]:
    events: list[dict[str, object]] = []
    return Recorder("SEC-08", "tests/x.py::test_x", (events.append,)), events


def test_steps_nest_and_carry_their_outcome() -> None:
    recorder, events = record()

    def body() -> None:
        with evidence.step("outer"):
            with evidence.step("inner", kind="then"):
                evidence.note("log", "hello")
            raise AssertionError("the cause\nand more")

    with recording(recorder), pytest.raises(AssertionError):
        body()
    begins = {e["title"]: e for e in events if e.get("phase") == "begin"}
    ends = {e["title"]: e for e in events if e.get("phase") == "end"}
    assert begins["inner"]["parent"] == begins["outer"]["step"]
    assert (ends["inner"]["outcome"], ends["outer"]["outcome"]) == ("passed", "failed")
    assert ends["outer"]["reason"] == "the cause"
    assert next(e for e in events if e["event"] == "attachment")["step"] == begins["inner"]["step"]


def test_of_an_error_the_innermost_step_is_known_that_it_left() -> None:
    recorder, _ = record()
    caught, deep, outside = AssertionError("caught"), AssertionError("deep"), AssertionError("outside")

    def leave(error: AssertionError, *titles: str) -> None:
        with contextlib.ExitStack() as steps:
            for title in titles:
                steps.enter_context(recorder.step(title))
            raise error

    for error, titles in ((caught, ("one",)), (deep, ("outer", "inner")), (outside, ())):
        with contextlib.suppress(AssertionError):
            leave(error, *titles)
    assert (recorder.step_of(deep), recorder.step_of(outside)) == ("inner", None)


def test_a_background_thread_records_into_the_open_step() -> None:
    recorder, events = record()
    with recording(recorder), evidence.step("stream"):
        thread = threading.Thread(target=evidence.exchange, args=({"method": "GET"}, {"status": 200}, "curl x"))
        thread.start()
        thread.join()
    sent = next(e for e in events if e["event"] == "exchange")
    assert sent["step"] == events[0]["step"]


def test_a_long_stream_is_thinned_and_counted() -> None:
    recorder, events = record()
    with recording(recorder), evidence.step("stream"):
        for number in range(EXCHANGES_PER_STEP + 60):
            evidence.exchange({"number": number}, {"status": 200}, "curl")
    written = [e for e in events if e["event"] == "exchange"]
    assert len(written) == EXCHANGES_PER_STEP + 1
    assert written[-1]["request"] == {"number": EXCHANGES_PER_STEP + 59}
    assert written[-1]["omitted"] == 59
    assert events[-1]["exchanges"] == EXCHANGES_PER_STEP + 60


def test_without_a_recorder_nothing_happens() -> None:
    assert evidence.current() is None
    with evidence.step("nobody listens"):
        evidence.exchange({}, {}, "")
        evidence.note("x", "y")
        evidence.plot("x", "<svg/>")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (f"curl -H 'Authorization: Bearer {JWT}' http://x", "curl -H 'Authorization: Bearer $TOKEN' http://x"),
        ({"Authorization": f"Bearer {JWT}"}, {"Authorization": "Bearer $TOKEN"}),
        ({"authorization": "invalid-token"}, {"authorization": "$TOKEN"}),
        ({"X-API-Key": "abcdef"}, {"X-API-Key": "$SECRET"}),
        ({"Set-Cookie": ["a=1", "b=2"]}, {"Set-Cookie": ["$SECRET", "$SECRET"]}),
        ([("X-API-Key", "abcdef"), ("a", "b")], [["X-API-Key", "$SECRET"], ["a", "b"]]),
        ({"usage": {"total_tokens": 12}}, {"usage": {"total_tokens": 12}}),
        ({"password": 1234}, {"password": "$SECRET"}),
        (
            {"apiKey": "k-123", "keys": [{"kty": "RSA", "n": "abc"}]},
            {"apiKey": "$SECRET", "keys": [{"kty": "RSA", "n": "abc"}]},
        ),
        ({"secretName": "ai-gateway-tls"}, {"secretName": "ai-gateway-tls"}),
        ({"key": "app", "operator": "In", "values": ["a"]}, {"key": "app", "operator": "In", "values": ["a"]}),
        ({"key": "hunter2"}, {"key": "$SECRET"}),
        ({"kind": "Secret", "data": {"tls.crt": "QUJD"}}, {"kind": "Secret", "data": {"tls.crt": "$SECRET"}}),
        ('{"newApiKey": "k-123", "n": 1}', '{"newApiKey": "$SECRET", "n": 1}'),
        ('"{\\"password\\": \\"hunter2\\"}"', '"{\\"password\\": \\"$SECRET\\"}"'),
        ("GET /x?access_token=abc&y=1", "GET /x?access_token=$TOKEN&y=1"),
        ("https://admin:hunter2@host/", "https://admin:$SECRET@host/"),
        ("password: hunter2", "password: $SECRET"),
        ("  key: request.auth.claims[tenant]", "  key: request.auth.claims[tenant]"),
        (f"before {PEM} after", "before $PRIVATE_KEY after"),
        (PEM[:40], "$PRIVATE_KEY"),
        (b"\xff" + JWT.encode(), "�$TOKEN"),
    ],
)
def test_known_secrets_are_replaced_and_the_rest_stays(given: object, wanted: object) -> None:
    assert redact(given) == wanted
    assert redact(wanted) == wanted, "redaction is not idempotent"


def nest(rng: random.Random, leaf: object) -> object:
    """The secret somewhere inside some structure, as code would hold it."""
    shapes = [
        lambda value: {rng.choice(["reply", "body", "details"]): value},
        lambda value: [1, value, None],
        lambda value: ("x", value),
        lambda value: json.dumps(value, default=str),
        lambda value: {"status": 200, "headers": {"x-note": value}},
    ]
    for _ in range(rng.randrange(4)):
        leaf = rng.choice(shapes)(leaf)
    return leaf


@pytest.mark.parametrize("seed", range(300))
def test_no_secret_survives_in_any_shape(seed: int) -> None:
    rng = random.Random(seed)
    body = "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=rng.randrange(20, 60)))
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "n": body}).encode()).decode().rstrip("=")
    secret, carrier = rng.choice(
        [
            (body, {"password": body}),
            (body, {"Authorization": f"Bearer {body}"}),
            (body, {rng.choice(["apiKey", "client_secret", "access-token", "X-API-Key"]): body}),
            (body, f"sent Authorization: Bearer {body} to the gateway"),
            (head, f"log line with {head}.{body}."),
            (body, f"-----BEGIN {KEY_WORDS}-----\n{body}\n-----END {KEY_WORDS}-----"),
        ]
    )
    assert secret not in json.dumps(redact(nest(rng, carrier)))


@pytest.mark.parametrize("seed", range(100))
def test_a_registered_secret_is_removed_wherever_it_is(seed: int) -> None:
    rng = random.Random(seed)
    secret = "".join(rng.choices(string.printable.strip(), k=rng.randrange(8, 40)))
    register_secret(secret)
    written = json.dumps(redact(nest(rng, {"log": f"x {secret} y {base64.b64encode(secret.encode()).decode()}"})))
    assert secret not in written
    assert base64.b64encode(secret.encode()).decode().rstrip("=") not in written


def test_a_text_that_was_shown_before_is_redacted_once_it_is_known_to_be_secret() -> None:
    assert redact("it is tr0ub4dor") == "it is tr0ub4dor"
    register_secret("tr0ub4dor")
    assert redact("it is tr0ub4dor") == "it is $SECRET"


def test_the_scan_finds_what_redaction_should_have_removed(tmp_path: Path) -> None:
    register_secret("correct-horse-battery")
    (tmp_path / "clean.txt").write_text(str(redact(f"Authorization: Bearer {JWT} correct-horse-battery {PEM}")))
    assert scan(tmp_path) == []
    (tmp_path / "dirty.txt").write_text(f"fine\n{JWT}\n{PEM}\ncorrect-horse-battery\nx-api-key: {'a1' * 16}\n")
    assert [(leak.line, leak.kind) for leak in scan(tmp_path)] == [
        (2, "a JSON web token"),
        (3, "a private key"),
        (6, "a registered secret"),
        (7, "a credential in a header"),
    ]
