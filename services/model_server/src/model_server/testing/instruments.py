"""Wraps a model server's app: counts and records what arrives, says which pod answered, injects faults on request.

Faults asked for by the request itself:
  x-stub-delay-ms  wait that long first
  x-stub-status    reply with that status instead of the model's answer
  x-stub-fail-n    only the first N attempts fail, with x-stub-status or else 503. Attempts are counted per x-stub-key,
                   or else per x-request-id, and reported as x-stub-attempt.
  x-stub-echo      reply with what arrived, as /echo does, whatever the path
  x-stub-pace-ms   wait that long before each piece of a streamed reply but the first
Faults set through the control port (`PUT /faults`) apply to every request, save the v2 health checks and the metrics:
those belong to the platform and are not its traffic. Only `ready` and `metrics` are about them: the model runs, and
never says that it is ready, or cannot be scraped.
"""

import asyncio
import random
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_server.body import DEFAULT_LIMIT, BodyTooLarge, ClientGone, read_body, refuse_body, replay
from model_server.testing.echo import echo

METRICS = "/metrics"
REMEMBERED_ARRIVALS = 5000
REMEMBERED_KEYS = 20_000
RECORDED_HEADERS = (
    "host",
    "traceparent",
    "x-forwarded-client-cert",
    "x-jwt-sub",
    "x-jwt-tenant",
    "x-probe",
    "x-tenant",
)


@dataclass(frozen=True)
class Arrival:
    at: float
    method: str
    path: str
    request_id: str | None
    headers: dict[str, str]
    authorization: bool


@dataclass(frozen=True)
class Faults:
    """`status` without `fail_ratio` hits every request; `fail_ratio` without `status` replies 503.

    `ready` 0 makes the readiness check (and nothing else) reply 503, `metrics` 0 the metrics. `predict_delay_ms` is
    time that the model itself takes (real models only): KServe's own timing sees it, as it does not see `delay_ms`.
    """

    delay_ms: float = 0
    status: int | None = None
    fail_ratio: float | None = None
    ready: int = 1
    metrics: int = 1
    predict_delay_ms: float = 0

    def verdict(self) -> int | None:
        if self.fail_ratio is not None and random.random() >= self.fail_ratio:
            return None
        return self.status or (503 if self.fail_ratio is not None else None)


@dataclass
class Concurrency:
    now: int = 0
    peak: int = 0
    total: int = 0

    def enter(self) -> None:
        self.now += 1
        self.total += 1
        self.peak = max(self.peak, self.now)

    def leave(self) -> None:
        self.now -= 1


@dataclass
class Records:
    """What the control port shows and sets."""

    arrivals: deque[Arrival] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ARRIVALS))
    concurrency: Concurrency = field(default_factory=Concurrency)
    faults: Faults = field(default_factory=Faults)
    attempts: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def attempt(self, key: str) -> int:
        count = self.attempts.pop(key, 0) + 1
        self.attempts[key] = count
        if len(self.attempts) > REMEMBERED_KEYS:
            self.attempts.popitem(last=False)
        return count


class BadFault(Exception):
    pass


@dataclass
class Instruments:
    app: ASGIApp
    records: Records
    version: str
    pod: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == METRICS:
            await self._scraped(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self.records.arrivals.append(_arrival(scope, headers))
        self.records.concurrency.enter()
        try:
            await self._answer(scope, headers, receive, send)
        finally:
            self.records.concurrency.leave()

    async def _scraped(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prometheus comes every few seconds: no arrival of anybody's."""
        broken = JSONResponse({"error": "metrics are broken, as was asked for"}, status_code=503)
        await (self.app if self.records.faults.metrics else broken)(scope, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        own = {"x-model-version": self.version, "x-pod": self.pod}

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(own)
            await send(message)

        try:
            delay, status = self._planned(scope, headers, own)
            send = _paced(send, (_number(headers, "x-stub-pace-ms", 0, 60_000) or 0) / 1000)
        except BadFault as problem:
            await JSONResponse({"error": str(problem)}, status_code=400)(scope, receive, signed)
            return
        if delay:
            try:
                body = await read_body(scope, receive, DEFAULT_LIMIT)
            except ClientGone:
                return
            except BodyTooLarge:
                await refuse_body(DEFAULT_LIMIT)(scope, receive, signed)
                return
            if not await _waited(delay, receive):
                return
            receive = replay(body, receive)
        if status is not None:
            await JSONResponse({"error": f"status {status} was asked for"}, status_code=status)(scope, receive, signed)
        elif scope["path"] == "/echo" or "x-stub-echo" in headers:
            await echo(scope, receive, signed)
        else:
            await self.app(scope, receive, signed)

    def _planned(self, scope: Scope, headers: Headers, own: dict[str, str]) -> tuple[float, int | None]:
        """Seconds to wait and the status to fail with, if any."""
        standing = self.records.faults
        if scope["path"].startswith("/v2/health/"):
            unready = scope["path"] == "/v2/health/ready" and not standing.ready
            standing = Faults(status=503 if unready else None)
        delay_ms = _number(headers, "x-stub-delay-ms", 0, 3_600_000) or standing.delay_ms
        status = _number(headers, "x-stub-status", 200, 599)
        fail_n = _number(headers, "x-stub-fail-n", 0, 1_000_000)
        key = headers.get("x-stub-key") or headers.get("x-request-id")
        if fail_n is not None or status is not None or "x-stub-key" in headers:
            if key is None and fail_n is not None:
                raise BadFault("x-stub-fail-n needs x-stub-key or x-request-id")
            if key is not None:
                attempt = self.records.attempt(key)
                own["x-stub-attempt"] = str(attempt)
                if fail_n is not None:
                    status = (status or 503) if attempt <= fail_n else None
        return delay_ms / 1000, status if status is not None else standing.verdict()


def _arrival(scope: Scope, headers: Headers) -> Arrival:
    recorded = {name: ", ".join(values) for name in RECORDED_HEADERS if (values := headers.getlist(name))}
    path = scope["raw_path"].decode("latin-1")
    return Arrival(
        time.time(), scope["method"], path, headers.get("x-request-id"), recorded, "authorization" in headers
    )


def _paced(send: Send, seconds: float) -> Send:
    """Sends a reply piece by piece with a pause between them."""
    begun = False

    async def paced(message: Message) -> None:
        nonlocal begun
        if message["type"] == "http.response.body" and message.get("body"):
            if begun:
                await asyncio.sleep(seconds)
            begun = True
        await send(message)

    return paced if seconds else send


def _number(headers: Headers, name: str, low: int, high: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise BadFault(f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}")
    return int(text)


async def _waited(seconds: float, receive: Receive) -> bool:
    """Whether the client was still there at the end of the wait."""
    gone = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait({gone}, timeout=seconds)
    gone.cancel()
    return not done
