"""The HTTP side: JWKS, demo tokens, health; everything is JSON."""

import ipaddress
import logging
import re
import time
from http import HTTPStatus

import jwt
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jwt_server.keys import KeyStore, SigningKey

access = logging.getLogger("jwt-server.access")

ISSUER = "inference-in-a-box"
LIFETIME_SECONDS = 24 * 60 * 60
TENANTS = {"tenant-a": ("user-a", "User A"), "tenant-b": ("user-b", "User B"), "tenant-c": ("user-c", "User C")}
_TOKEN_LIKE = re.compile(r"eyJ[\w-]+(\.[\w-]*)*")


def create_app(store: KeyStore, *, demo_tokens: bool = False, max_age: int = 60) -> Starlette:
    async def jwks(_: Request) -> Response:
        keys = [key.jwk() for key in store.live_or_last_good()]
        return JSONResponse({"keys": keys}, headers={"cache-control": f"public, max-age={max_age}"})

    async def tokens(request: Request) -> Response:
        if not _from_this_machine(request.scope):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        newest = store.live_or_last_good()[0]
        now = int(time.time())
        return JSONResponse({tenant: issue(tenant, newest, now) for tenant in TENANTS}, headers=_NO_STORE)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy"}, headers=_NO_STORE)

    routes = [Route("/.well-known/jwks.json", jwks), Route("/health", health)]
    if demo_tokens:
        routes.append(Route("/tokens", tokens))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(AccessLog)],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    app.router.redirect_slashes = False
    return app


def _from_this_machine(scope: Scope) -> bool:
    """Whether the connection itself is a loopback one, as kubectl port-forward's is; headers have no say in it."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def issue(tenant: str, key: SigningKey, now: int) -> str:
    subject, name = TENANTS[tenant]
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": tenant,
        "tenant": tenant,
        "name": name,
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
    }
    return jwt.encode(claims, key.private, algorithm="RS256", headers={"kid": key.kid})


class AccessLog:
    """One line per request, without query string, headers or body, so that no token can reach it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = _TOKEN_LIKE.sub("[token]", scope["path"]).encode("unicode_escape").decode()[:200]
                milliseconds = (time.perf_counter() - started) * 1000
                access.info("%s %s %d %.1fms", scope["method"], path, message["status"], milliseconds)
            await send(message)

        await self.app(scope, receive, logged)


_NO_STORE = {"cache-control": "no-store"}


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return JSONResponse({"error": phrase.lower()}, status_code=error.status_code, headers=error.headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "internal server error"}, status_code=500)
