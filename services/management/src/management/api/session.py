"""Login of administrators, sessions of browsers, and who one is."""

from fastapi import APIRouter, Request, Response

from management.api.depends import COOKIE, ERRORS, Parts, User
from management.errors import ApiError
from management.schemas import LoggedIn, Login, Message, Session, Tenant
from management.schemas import User as UserShown

router = APIRouter(prefix="/api", responses=ERRORS, tags=["session"])


@router.post("/admin/login")
async def login(wish: Login, request: Request, response: Response, parts: Parts) -> LoggedIn:
    """Name and password against a token. Wrong ones are counted: ten in a minute, and a minute's rest."""
    name = wish.username
    if wait := parts.logins.wait(name):
        parts.audit.note("login", "refused", subject=name[:100], request_id=request.state.request_id)
        raise ApiError(429, "too many attempts", f"again in {wait} s", {"retry-after": str(wait)})
    if not await parts.administrators.check(name, wish.password):
        parts.logins.failed(name)
        parts.audit.note("login", "refused", subject=name[:100], request_id=request.state.request_id)
        raise ApiError(401, "wrong name or password")
    parts.logins.succeeded(name)
    token, ends = await parts.tokens.for_admin(name)
    parts.audit.note("login", "done", tenant="admin", subject=name[:100], request_id=request.state.request_id)
    _keep(response, token, request)
    return LoggedIn(token=token, user=UserShown(tenant="admin", name=name, is_admin=True, exp=ends))


@router.post("/session")
async def begin(wish: Session, request: Request, response: Response, parts: Parts) -> UserShown:
    """Keep a tenant's token in a cookie that no script can read."""
    found = await parts.tokens.caller(wish.token)
    _keep(response, wish.token, request)
    return UserShown(tenant=found.tenant, name=found.name, is_admin=found.is_admin, exp=found.expires)


@router.delete("/session")
async def end(response: Response) -> Message:
    response.delete_cookie(COOKIE, path="/api")
    return Message(message="signed out")


@router.get("/tenant")
async def tenant(user: User) -> Tenant:
    return Tenant(tenant=user.tenant, name=user.name, is_admin=user.is_admin)


def _keep(response: Response, token: str, request: Request) -> None:
    # as the browser says it: between the gateways everything is https, whatever the page is
    secure = request.headers.get("origin", "").startswith("https:")
    response.set_cookie(COOKIE, token, path="/api", httponly=True, samesite="strict", secure=secure)
