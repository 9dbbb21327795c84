"""Tokens: genuine ones, and every way to forge one.

The platform's tokens are RS256 with `kid` jwt-server-key-1, `iss` inference-in-a-box, `aud` = `tenant`, `sub`, `name`,
`iat` and `exp` (SPEC 1.3). Forgeries follow RFC 8725 (JWT best current practices), section 2: unsigned, algorithm
confusion, keys brought along in the header, altered claims. Token values never show in a representation.
"""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call

KEY_ID = "jwt-server-key-1"
ISSUER = "inference-in-a-box"
LIFETIME = 24 * 3600
ABSENT: Any = object()
"""As a claim's value: leave the claim out."""


class Token(str):
    """A token whose value assertion messages never show; `label` says what it is."""

    __slots__ = ("label",)
    label: str

    def __new__(cls, value: str, label: str = "") -> "Token":
        token = super().__new__(cls, value)
        token.label = label
        return token

    def __repr__(self) -> str:
        return f"<Token {self.label or 'hidden'}>"

    def __reduce__(self) -> tuple[type["Token"], tuple[str, str]]:
        return type(self), (str.__str__(self), self.label)


@dataclass(frozen=True, repr=False)
class SigningKey:
    """An RSA key pair and the `kid` under which its public half is published."""

    private: rsa.RSAPrivateKey
    kid: str = KEY_ID

    @classmethod
    def generate(cls, kid: str = KEY_ID) -> "SigningKey":
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048), kid)

    @classmethod
    def load(cls, pem: bytes, kid: str = KEY_ID) -> "SigningKey":
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise SetupProblem("the JWT server's key is no RSA key", "delete it; the JWT server makes a new one")
        return cls(key, kid)

    @classmethod
    def newest(cls, folder: Path) -> "SigningKey":
        """The newest key of a JWT server's directory, where files are named `jwt-server-key-<number>.pem`."""
        files = [path for path in folder.glob("*.pem") if path.stem.rpartition("-")[2].isdigit()]
        if not files:
            raise SetupProblem(f"no signing key in {folder}", "see that the JWT server is running")
        newest = max(files, key=lambda path: int(path.stem.rpartition("-")[2]))
        return cls.load(newest.read_bytes(), newest.stem)

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid}>"

    @property
    def private_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.private.private_bytes(encoding, form, serialization.NoEncryption())

    @property
    def public_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    @property
    def public_jwk(self) -> dict[str, str]:
        """As a JWKS publishes it."""
        numbers = self.private.public_key().public_numbers()
        return {
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": self.kid,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [self.public_jwk]}


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def claims_of(tenant: str = "tenant-a", /, **changes: Any) -> dict[str, Any]:
    """The claims of a tenant's token, with changes; `ABSENT` leaves a claim out."""
    now = int(time.time())
    user = f"user-{tenant.removeprefix('tenant-')}"
    usual = {
        "iss": ISSUER,
        "aud": tenant,
        "tenant": tenant,
        "sub": user,
        "name": user,
        "iat": now,
        "exp": now + LIFETIME,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not ABSENT}


def token(
    key: SigningKey,
    of: str = "tenant-a",
    /,
    *,
    label: str = "",
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> Token:
    """A token signed as the JWT server does, for a tenant, with claims of one's own."""
    head = {"alg": "RS256", "typ": "JWT", "kid": key.kid, **(header or {})}
    kind = f"genuine, {of}" if not claims and not header else f"signed, with {', '.join([*claims, *(header or {})])}"
    payload = _part(head) + "." + _part(claims_of(of, **claims))
    signature = jwt.get_algorithm_by_name("RS256").sign(payload.encode(), key.private)
    return Token(f"{payload}.{_base64(signature)}", label or kind)


@dataclass(frozen=True)
class BadHeader:
    """An Authorization header that carries no token in the right form."""

    name: str
    value: str

    def on(self, call: Call) -> Call:
        """The call with this header in place of a token."""
        return call.with_(token=None).adding(("Authorization", self.value)).called(f"{call} with {self.name}")

    def __repr__(self) -> str:
        return f"<BadHeader {self.name}>"


class Forger:
    """Makes bad tokens for a tenant out of the platform's own key where the key is not what is wrong with them.

    Args:
        key: the platform's signing key.
        tenant: whose tokens to imitate.
    """

    def __init__(self, key: SigningKey, tenant: str = "tenant-a") -> None:
        self.key = key
        self.tenant = tenant
        self.foreign = SigningKey.generate(key.kid)

    def genuine(self, tenant: str | None = None) -> Token:
        return token(self.key, tenant or self.tenant)

    def _signed(self, label: str, **claims: Any) -> Token:
        return token(self.key, self.tenant, label=label, **claims)

    # SEC-03: not in the right form

    def malformed(self) -> list[BadHeader]:
        """Headers without a well-formed token (SEC-03)."""
        good = self.genuine()
        head, payload, _ = good.split(".")
        return [
            BadHeader("the text invalid-token", "Bearer invalid-token"),
            BadHeader("an empty header", ""),
            BadHeader("an empty token", "Bearer"),
            BadHeader("Basic credentials", "Basic " + base64.b64encode(b"user-a:password").decode()),
            BadHeader("a token without scheme", str.__str__(good)),
            BadHeader("a token of two parts", f"Bearer {head}.{payload}"),
            BadHeader("a token out of other letters than base64", "Bearer !!!.###.***"),
            BadHeader("a token of no base64 length", "Bearer abcde.abcde.abcde"),
        ]

    # SEC-04: not in its time

    def expired(self, seconds: int = 300) -> Token:
        now = int(time.time())
        return self._signed(f"expired {seconds} s ago", iat=now - seconds - 3600, exp=now - seconds)

    def not_yet_valid(self, seconds: int = 600) -> Token:
        return self._signed(f"valid in {seconds} s", nbf=int(time.time()) + seconds)

    # SEC-05, SEC-07: signed by the right key, with wrong claims

    def wrong_issuer(self, issuer: str = "somebody-else") -> Token:
        return self._signed("wrong issuer", iss=issuer)

    def wrong_audience(self, audience: str = "tenant-z") -> Token:
        """An audience that no provider lists."""
        return self._signed("unlisted audience", aud=audience)

    def audience_of(self, other: str) -> Token:
        """A listed audience that is not the tenant claim's."""
        return self._signed(f"audience {other}, tenant {self.tenant}", aud=other)

    def tenant_claim(self, value: Any) -> Token:
        """Any value as tenant claim; the audience stays right."""
        return self._signed("no tenant claim" if value is ABSENT else f"tenant claim {value!r}", tenant=value)

    def wrong_tenant_claims(self) -> list[Token]:
        """Absent, empty, a list, an unknown tenant, another case (SEC-07)."""
        values = [ABSENT, "", [self.tenant, "tenant-b"], "tenant-z", self.tenant.title()]
        return [self.tenant_claim(value) for value in values]

    # SEC-06: wrong signature

    def alg_none(self, spelling: str = "none", signed: bool = False) -> Token:
        """Without a signature, as RFC 7519 section 6 has it; Envoy already refuses the empty third part as bad form.

        With `signed` a genuine signature stands there, so that it must be the algorithm that is refused.
        """
        signature = self.genuine().rpartition(".")[2] if signed else ""
        return Token(f"{self._unsigned(alg=spelling)}.{signature}", f"alg {spelling}{' with a signature' * signed}")

    def hs256_with_public_key(self) -> Token:
        """Algorithm confusion: the published key taken as an HMAC secret."""
        text = self._unsigned(alg="HS256")
        return Token(
            f"{text}.{_base64(hmac.digest(self.key.public_pem, text.encode(), sha256))}", "HS256 with public key"
        )

    def altered_payload(self, **claims: Any) -> Token:
        """A genuine signature under other claims; by default another tenant's."""
        head, _, signature = self.genuine().split(".")
        other = claims or {"tenant": "tenant-b", "aud": "tenant-b", "sub": "user-b"}
        return Token(f"{head}.{_part(claims_of(self.tenant, **other))}.{signature}", "altered payload")

    def foreign_key(self) -> Token:
        """A key of somebody else under the platform's `kid`."""
        return token(self.foreign, self.tenant, label="foreign key")

    def embedded_jwk(self) -> Token:
        """A foreign key, brought along in the header."""
        return token(self.foreign, self.tenant, label="embedded jwk", header={"jwk": self.foreign.public_jwk})

    def jku(self, url: str = "http://127.0.0.1:9/jwks.json") -> Token:
        """A foreign key, with the address where it is published."""
        return token(self.foreign, self.tenant, label="jku", header={"jku": url})

    def wrong_signatures(self) -> list[Token]:
        """Every token of SEC-06."""
        unsigned = [self.alg_none(name, signed) for name in ("none", "None", "nOnE") for signed in (False, True)]
        confused = [self.hs256_with_public_key(), self.altered_payload()]
        return [*unsigned, *confused, self.foreign_key(), self.embedded_jwk(), self.jku()]

    def _unsigned(self, **header: Any) -> str:
        return f"{_part({'typ': 'JWT', 'kid': self.key.kid, **header})}.{_part(claims_of(self.tenant))}"


class TokenSource(Protocol):
    """Where genuine tokens come from."""

    def token(self, tenant: str) -> Token: ...


@dataclass(frozen=True)
class DemoTokens:
    """The demo tokens of a JWT server (`GET /tokens`, reachable over the administrator's port-forward only)."""

    endpoint: Endpoint

    def all(self) -> dict[str, Token]:
        seen = Call("GET", self.endpoint, "/tokens", quiet=True, retry_transport=2)()
        if seen.status != 200:
            raise SetupProblem(
                f"the JWT server at {self.endpoint.url} gives no tokens: {seen}", "see that it is running"
            )
        tokens = {tenant: Token(value, f"genuine, {tenant}") for tenant, value in seen.json().items()}
        for value in tokens.values():
            evidence.register_secret(str.__str__(value), "$TOKEN")
        return tokens

    def token(self, tenant: str) -> Token:
        tokens = self.all()
        if tenant not in tokens:
            raise SetupProblem(f"the JWT server has no token for {tenant}", "see its configured tenants")
        return tokens[tenant]
