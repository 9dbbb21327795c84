"""What holds for every request: bounded bodies in bounded time, an id each, headers that make browsers careful."""

import asyncio
import json
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from management import metrics

log = logging.getLogger("management.access")

BODY_SECONDS = 15.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
}


class Guard:
    """Limits bodies, names requests, adds the security headers, and counts."""

    def __init__(self, app: ASGIApp, body_limit: int) -> None:
        self.app = app
        self._limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["x-request-id"] = request_id
                out.setdefault("cache-control", "no-store")
                for name, value in {**SECURITY, **scope["state"].get("told", {})}.items():
                    out.setdefault(name, value)
            await send(message)

        announced = headers.get("content-length", "0")
        try:
            if announced.isdigit() and int(announced) > self._limit:
                await _refuse(told, 413, _too_long(self._limit))
            else:
                await self.app(scope, _bounded(receive, self._limit), told)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            spent = time.perf_counter() - started
            metrics.requests.labels(scope["method"] if scope["method"] in _METHODS else "other", route, status).inc()
            metrics.seconds.labels(route).observe(spent)
            if scope["path"] not in _QUIET and not scope["path"].startswith("/internal/"):
                log.info("%s %s %d %.1fms %s", scope["method"], _shown(scope["path"]), status, spent * 1000, request_id)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_QUIET = {"/health", "/ready", "/metrics", "/api/validate-api-key"}


def _shown(path: str) -> str:
    return path.encode("unicode_escape").decode()[:200]


def _bounded(receive: Receive, limit: int) -> Receive:
    """The body, as long as it is not too long and comes within its time as a whole."""
    received, ends, complete = 0, time.monotonic() + BODY_SECONDS, False

    async def next_part() -> Message:
        nonlocal received, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout(max(0.01, ends - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, _too_long(limit))
        return message

    return next_part


def _too_long(limit: int) -> str:
    return f"the body is longer than {limit} bytes"


async def _refuse(send: Send, status: int, error: str) -> None:
    """Without reading what the client goes on to send: the connection ends with the reply."""
    body = json.dumps({"error": error}).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
