"""Who calls: tenants by the platform's tokens, administrators by this service's own. Nothing unverified is looked at.

Which algorithm and key a token is checked with follows from its issuer, never from the token's own word for it.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from management.errors import ApiError
from management.kube import NAMESPACES, SECRETS, Kube, KubeError
from management.settings import Settings

log = logging.getLogger("management.identity")

ADMIN_ISSUER = "management.inference-in-a-box"
ADMIN_LIFETIME = 3600
JWKS_SECONDS = 60.0
JWKS_RETRY_SECONDS = 5.0
SCRYPT = {"n": 2**14, "r": 8, "p": 1}


@dataclass(frozen=True)
class Caller:
    """A verified user."""

    tenant: str
    subject: str
    name: str
    is_admin: bool
    expires: int
    token: str = ""

    @property
    def id(self) -> str:
        return f"{self.tenant}/{self.subject}"

    def namespace(self, wished: str | None, default: str) -> str:
        """Where the call is about: a tenant's own namespace, whatever it asks for; an administrator's wish."""
        if self.is_admin:
            return wished or default
        if wished not in (None, "", self.tenant):
            raise ApiError(403, "another tenant's namespace", f"you are {self.tenant}")
        return self.tenant


class SigningKeys:
    """The platform's public keys: asked for again when they are a minute old, or when a token names a new one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, Any] = {}
        self._fetched = 0.0
        self._tried = 0.0
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> Any:
        age = time.monotonic() - self._fetched
        if not self._keys or age > JWKS_SECONDS or kid not in self._keys:
            await self._refresh()
        if not self._keys:
            raise ApiError(503, "tokens can't be checked: the JWT server does not answer", headers={"retry-after": "5"})
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        async with self._lock:
            if time.monotonic() - self._tried < JWKS_RETRY_SECONDS and self._tried:
                return
            self._tried = time.monotonic()
            try:
                async with httpx.AsyncClient(trust_env=False, timeout=3.0) as client:
                    reply = (await client.get(self._url)).raise_for_status().json()
                self._keys = {
                    entry["kid"]: jwt.PyJWK(entry, algorithm="RS256").key
                    for entry in reply["keys"]
                    if entry.get("kty") == "RSA" and entry.get("kid")
                }
                self._fetched = time.monotonic()
            except (httpx.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as problem:
                log.error("fetching the signing keys: %s", type(problem).__name__)


class Tokens:
    """Checks tokens, and makes those of administrators."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self._platform = SigningKeys(settings.jwks_url)
        self._own = b""

    async def caller(self, token: str) -> Caller:
        """Who a token speaks for.

        Raises:
            ApiError: 403, the token is not good; 503, nobody can tell.
        """
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise ApiError(403, "the token is not valid", "it is no JSON web token") from None
        if claims.get("iss") == ADMIN_ISSUER:
            return await self._admin(token)
        return await self._tenant(token, str(header.get("kid", "")))

    async def _tenant(self, token: str, kid: str) -> Caller:
        key = await self._platform.key(kid)
        if key is None:
            raise ApiError(403, "the token is not valid", "it is signed with a key that is not the platform's")
        claims = self._verified(token, key, "RS256", self._settings.issuer)
        tenant, audience = claims.get("tenant"), claims.get("aud")
        known = isinstance(tenant, str) and tenant.startswith("tenant-") and audience in (tenant, [tenant])
        if not known:
            raise ApiError(403, "the token is not valid", "its tenant and audience are not one tenant of the platform")
        name = str(claims.get("name") or claims["sub"])
        return Caller(str(tenant), str(claims["sub"]), name, False, int(claims["exp"]), token)

    async def _admin(self, token: str) -> Caller:
        claims = self._verified(token, await self._own_key(), "HS256", ADMIN_ISSUER)
        return Caller("admin", str(claims["sub"]), str(claims["sub"]), True, int(claims["exp"]), token)

    @staticmethod
    def _verified(token: str, key: Any, algorithm: str, issuer: str) -> dict[str, Any]:
        required = {"require": ["exp", "sub", "iss"], "verify_aud": False}
        try:
            return jwt.decode(token, key, algorithms=[algorithm], issuer=issuer, options=required, leeway=5)
        except (jwt.PyJWTError, ValueError, TypeError) as problem:
            raise ApiError(403, "the token is not valid", str(problem)[:200]) from None

    async def for_admin(self, name: str) -> tuple[str, int]:
        """A token for an administrator who gave the right password, and when it ends."""
        now = int(time.time())
        claims = {"iss": ADMIN_ISSUER, "sub": name, "iat": now, "exp": now + ADMIN_LIFETIME}
        return jwt.encode(claims, await self._own_key(), algorithm="HS256"), now + ADMIN_LIFETIME

    async def _own_key(self) -> bytes:
        """Kept in the API, so that restarts and replicas take each other's tokens."""
        if not self._own:
            document = await secret_or_new(
                self._kube, self._settings.namespace, "management-signing-key", {"key": secrets.token_bytes(32)}
            )
            self._own = base64.b64decode(document["data"]["key"])
        return self._own


class Administrators:
    """The administrator's name and password: kept as a salted scrypt hash."""

    SECRET = "management-admin"

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube

    async def check(self, name: str, password: str) -> bool:
        """Takes the same time for names that there are and names that there are not."""
        document = await self._kube.find(SECRETS, self._settings.namespace, self.SECRET)
        if document is None and self._settings.demo_credentials:
            document = await self.set("admin", "password")
        data = {key: base64.b64decode(value) for key, value in (document or {}).get("data", {}).items()}
        salt, wanted = data.get("salt", b"nobody's salt..."), data.get("hash", b"")
        found = await asyncio.to_thread(_scrypt, password, salt)
        named = hmac.compare_digest(name.encode(), data.get("username", b"\0"))
        return hmac.compare_digest(found, wanted) and named

    async def set(self, name: str, password: str) -> dict[str, Any]:
        salt = secrets.token_bytes(16)
        data = {"username": name.encode(), "salt": salt, "hash": await asyncio.to_thread(_scrypt, password, salt)}
        return await secret_or_new(self._kube, self._settings.namespace, self.SECRET, data)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, maxmem=64 * 1024 * 1024, **SCRYPT)


async def secret_or_new(kube: Kube, namespace: str, name: str, data: dict[str, bytes]) -> dict[str, Any]:
    """The Secret that is there, or one made of the data; who comes second takes what the first one made."""
    if found := await kube.find(SECRETS, namespace, name):
        return found
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": encoded,
    }
    try:
        return await kube.create(SECRETS, document)
    except KubeError as error:
        if error.status != 409:
            raise
        return await kube.get(SECRETS, namespace, name)


async def tenants(kube: Kube) -> list[dict[str, Any]]:
    """The namespaces that are a tenant's."""
    return await kube.all(NAMESPACES, labels="tenant")
