"""Judging API keys: for anybody who asks about one, and for the gateway about a request."""

from typing import Annotated

from fastapi import APIRouter, Body, Header, Request, Response
from starlette.responses import JSONResponse

from management import metrics
from management.api.depends import ERRORS, Parts
from management.errors import ApiError
from management.publication import Publication, published_as
from management.schemas import KeyToValidate, ValidKey
from management.services import Services

router = APIRouter(prefix="/api", responses=ERRORS, tags=["keys"])
AUTHORIZE = "/internal/authorize"


@router.post("/validate-api-key")
async def validate(
    response: Response,
    parts: Parts,
    body: Annotated[KeyToValidate | None, Body()] = None,
    x_api_key: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> ValidKey:
    """Whose a key is. By X-API-Key, as a Bearer token, or in the body. No token is needed: the key is the secret."""
    scheme, _, bearer = (authorization or "").partition(" ")
    key = x_api_key or (bearer.strip() if scheme.lower() == "bearer" else "") or (body.api_key if body else "") or ""
    found = _judged(parts, key)
    response.headers.update(_headers(found))
    return ValidKey(valid=True, tenant=found.tenant, model=found.model)


async def authorize(request: Request) -> Response:
    """The gateway's question about a request to a published model (Envoy's HTTP `ext_authz`).

    The path asked for follows `/internal/authorize`; the host is the one asked for. 200 lets the request through with
    the headers given here; any other reply is the client's.
    """
    parts: Services = request.app.state.services
    try:
        found = _judged(parts, request.headers.get("x-api-key", ""))
        host = request.headers.get("host", "").partition(":")[0].lower()
        path = request.scope["path"].removeprefix(AUTHORIZE)
        if not parts.register.opens(found, host, path):
            metrics.keys_checked.labels("another model's").inc()
            raise ApiError(403, "this key is for another model")
        if request.method != "POST":
            raise ApiError(405, "published models are asked by POST")
        await _allowed_tenant(parts, found, request)
    except ApiError as error:
        return JSONResponse(error.body, error.status, headers={**error.headers, "x-refused-by": "api-key"})
    parts.register.count(found)
    metrics.calls.labels(found.namespace, found.model).inc()
    told = {"x-tenant": found.tenant, "x-published-model": published_as(found), "x-publication": found.uid}
    return Response(status_code=200, headers=told)


def _judged(parts: Services, key: str) -> Publication:
    if not parts.register.ready:
        raise ApiError(
            503, "keys can't be judged yet: the Kubernetes API was not read so far", headers={"retry-after": "2"}
        )
    found = parts.register.by_key(key) if key else None
    metrics.keys_checked.labels("good" if found else "none" if not key else "unknown").inc()
    if found is None:
        raise ApiError(401, "a valid API key is needed", "send it as X-API-Key")
    return found


async def _allowed_tenant(parts: Services, found: Publication, request: Request) -> None:
    """Where only some tenants are allowed, the key is not enough: a token says who calls."""
    allowed = found.authentication.allowed_tenants
    if not allowed:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(401, "a token is needed besides the key", "this model is for some tenants only")
    caller = await parts.tokens.caller(token.strip())
    if caller.tenant not in allowed:
        metrics.keys_checked.labels("tenant not allowed").inc()
        raise ApiError(403, "this model is not for your tenant")


def _headers(found: Publication) -> dict[str, str]:
    return {"x-tenant-id": found.tenant, "x-model-name": found.model, "x-model-type": found.kind}
