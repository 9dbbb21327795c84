"""What handlers ask for: the services, the verified caller, the audit log; and the errors that all of them can give."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from management.errors import ApiError
from management.identity import Caller
from management.publication import Publication
from management.schemas import Error, Namespace
from management.services import Services

COOKIE = "session"
CONSOLE = "console"
ADMIN_DEFAULT = "tenant-a"

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        400: "The request is not as it should be",
        401: "No token",
        403: "The token is not good, or not for this",
        404: "There is no such thing",
        405: "Not with this method",
        408: "The request did not arrive in time",
        409: "It is there already, or somebody else is at it",
        413: "The request is too long",
        429: "Too many calls",
        502: "The other side gave no reply",
        503: "Something that is needed is away for the moment",
    }.items()
}


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Parts = Annotated[Services, Depends(services)]


async def caller(request: Request, parts: Parts) -> Caller:
    """Who calls, within what they may call.

    Raises:
        ApiError: 401 without a token, 403 with one that is not good, 429 too often.
    """
    found = await parts.tokens.caller(_token(request))
    allowance = parts.users.take(found.id)
    request.state.told = allowance.headers
    if not allowance.allowed:
        raise ApiError(429, "too many calls", f"{allowance.limit} a minute and a few each second", allowance.headers)
    return found


def _token(request: Request) -> str:
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(401, "a token is needed", "Authorization: Bearer <token>", {"www-authenticate": "Bearer"})
        return token.strip()
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        raise ApiError(401, "a token is needed", "Authorization: Bearer <token>", {"www-authenticate": "Bearer"})
    if request.method not in ("GET", "HEAD") and request.headers.get("x-requested-with") != CONSOLE:
        raise ApiError(403, "this came from another page", "send X-Requested-With: console with a session cookie")
    return cookie


User = Annotated[Caller, Depends(caller)]


def administrator(user: User) -> Caller:
    if not user.is_admin:
        raise ApiError(403, "for administrators only")
    return user


Admin = Annotated[Caller, Depends(administrator)]
Wished = Annotated[Namespace | None, Query(description="an administrator's choice; a tenant has only its own")]


def namespace(user: User, namespace: Wished = None) -> str:
    return user.namespace(namespace, ADMIN_DEFAULT)


Place = Annotated[str, Depends(namespace)]


def auditor(request: Request, user: User, parts: Parts) -> Callable[..., None]:
    """Writes entries of the audit log in the caller's name."""

    def note(action: str, outcome: str = "done", **facts: Any) -> None:
        parts.audit.note(
            action, outcome, tenant=user.tenant, subject=user.subject, request_id=request.state.request_id, **facts
        )

    return note


Note = Annotated[Callable[..., None], Depends(auditor)]


def publication(parts: Services, namespace: str, name: str) -> Publication:
    """The active publication of a model.

    Raises:
        ApiError: 404 there is none, 503 nobody knows yet.
    """
    found = parts.register.publications.get((namespace, name))
    if found is None or found.phase != "Active":
        if not parts.register.ready:
            raise ApiError(503, "not known yet: the Kubernetes API was not read so far", headers={"retry-after": "2"})
        raise ApiError(404, f"{name} is not published")
    return found
