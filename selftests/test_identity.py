"""Forged tokens are wrong in exactly the way their name says, and no token shows in a representation."""

import hashlib
import hmac
import json
import pickle
import time
from pathlib import Path

import jwt
import pytest
from loopback import closed_port, reply, serving

from inferencebox.errors import SetupProblem
from inferencebox.identity import ABSENT, ISSUER, DemoTokens, Forger, SigningKey, Token, token
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call

KEY = SigningKey.generate()
FORGER = Forger(KEY)


def verified(value: str, audience: str | None = "tenant-a", key: SigningKey = KEY) -> dict[str, object]:
    public = key.private.public_key()
    options = {"verify_aud": audience is not None}
    return jwt.decode(value, public, ["RS256"], options=options, audience=audience, issuer=ISSUER)  # type: ignore[arg-type]


def test_a_genuine_token_is_as_the_jwt_server_makes_it() -> None:
    value = FORGER.genuine()
    claims = verified(value)
    assert jwt.get_unverified_header(value) == {"alg": "RS256", "typ": "JWT", "kid": "jwt-server-key-1"}
    assert (claims["aud"], claims["tenant"], claims["sub"]) == ("tenant-a", "tenant-a", "user-a")
    assert claims["exp"] - claims["iat"] == 24 * 3600  # type: ignore[operator]


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        (FORGER.expired(), jwt.ExpiredSignatureError),
        (FORGER.not_yet_valid(), jwt.ImmatureSignatureError),
        (FORGER.wrong_issuer(), jwt.InvalidIssuerError),
        (FORGER.wrong_audience(), jwt.InvalidAudienceError),
        (FORGER.alg_none(), jwt.InvalidAlgorithmError),
        (FORGER.alg_none("none", signed=True), jwt.InvalidAlgorithmError),
        (FORGER.alg_none("nOnE"), jwt.InvalidAlgorithmError),
        (FORGER.hs256_with_public_key(), jwt.InvalidAlgorithmError),
        (FORGER.altered_payload(), jwt.InvalidSignatureError),
        (FORGER.foreign_key(), jwt.InvalidSignatureError),
        (FORGER.embedded_jwk(), jwt.InvalidSignatureError),
        (FORGER.jku(), jwt.InvalidSignatureError),
    ],
    ids=lambda value: getattr(value, "label", None) or value.__name__,
)
def test_a_forged_token_fails_for_its_own_reason(forged: Token, problem: type[Exception]) -> None:
    with pytest.raises(problem):
        verified(forged)


def test_expiry_and_validity_are_off_by_what_was_asked() -> None:
    claims = jwt.decode(FORGER.expired(), options={"verify_signature": False})
    assert time.time() - claims["exp"] == pytest.approx(300, abs=5)
    claims = jwt.decode(FORGER.not_yet_valid(), options={"verify_signature": False})
    assert claims["nbf"] - time.time() == pytest.approx(600, abs=5)
    assert claims["exp"] > claims["nbf"]


def test_wrong_tenant_claims_are_well_signed_for_the_right_audience() -> None:
    claims = [verified(value) for value in FORGER.wrong_tenant_claims()]
    assert [claim.get("tenant", ABSENT) for claim in claims] == [
        ABSENT,
        "",
        ["tenant-a", "tenant-b"],
        "tenant-z",
        "Tenant-A",
    ]


def test_a_listed_audience_of_another_tenant_is_well_signed() -> None:
    claims = verified(FORGER.audience_of("tenant-b"), audience="tenant-b")
    assert (claims["aud"], claims["tenant"]) == ("tenant-b", "tenant-a")


def test_the_altered_payload_names_the_other_tenant_under_a_real_signature() -> None:
    forged = FORGER.altered_payload()
    claims = jwt.decode(forged, options={"verify_signature": False})
    assert (claims["tenant"], claims["aud"]) == ("tenant-b", "tenant-b")


def test_keys_brought_along_are_those_that_signed() -> None:
    header = jwt.get_unverified_header(FORGER.embedded_jwk())
    assert header["kid"] == KEY.kid
    assert header["jwk"]["n"] == FORGER.foreign.public_jwk["n"] != KEY.public_jwk["n"]
    assert jwt.get_unverified_header(FORGER.jku("http://evil/"))["jku"] == "http://evil/"
    verified(FORGER.foreign_key(), key=FORGER.foreign)


def test_confusion_signs_with_the_published_key() -> None:
    forged = FORGER.hs256_with_public_key()
    text, _, signature = forged.rpartition(".")
    expected = hmac.digest(KEY.public_pem, text.encode(), hashlib.sha256)
    assert jwt.utils.base64url_decode(signature) == expected


def test_each_malformed_header_is_sent_as_it_is() -> None:
    with serving(reply(401, b"Jwt is missing")) as server:
        for bad in FORGER.malformed():
            assert bad.on(Call("GET", server.endpoint, "/", token="good"))().status == 401
    sent = [
        line.partition(": ")[2] if ": " in line else ""
        for request in server.requests
        for line in request.decode().split("\r\n")
        if line.lower().startswith("authorization:")
    ]
    assert sent[:3] == ["Bearer invalid-token", "", "Bearer"]
    assert sent[3].startswith("Basic ")
    assert verified(sent[4])
    assert sent[5].count(".") == 1
    assert sent[6:] == ["Bearer !!!.###.***", "Bearer abcde.abcde.abcde"]


def test_the_published_key_verifies() -> None:
    published = jwt.PyJWK(KEY.public_jwk)
    assert jwt.decode(FORGER.genuine(), published, ["RS256"], audience="tenant-a")["sub"] == "user-a"
    assert KEY.jwks["keys"][0]["kid"] == KEY.kid


def test_values_never_show() -> None:
    value = FORGER.genuine()
    shown = repr([value, {"token": value}, FORGER.malformed(), KEY]) + f"{value!r}"
    assert str.__str__(value).split(".")[1] not in shown
    assert "<Token genuine, tenant-a>" in shown
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)
    assert pickle.loads(pickle.dumps(value)) == value


def test_the_newest_key_of_a_directory_is_taken(tmp_path: Path) -> None:
    newer = SigningKey.generate()
    (tmp_path / "jwt-server-key-9.pem").write_bytes(KEY.private_pem)
    (tmp_path / "jwt-server-key-10.pem").write_bytes(newer.private_pem)
    found = SigningKey.newest(tmp_path)
    assert (found.kid, found.public_jwk["n"]) == ("jwt-server-key-10", newer.public_jwk["n"])
    with pytest.raises(SetupProblem, match="no signing key"):
        SigningKey.newest(tmp_path / "empty")


def test_demo_tokens_come_from_the_jwt_server() -> None:
    good = FORGER.genuine()
    with serving(reply(200, json.dumps({"tenant-a": good}).encode())) as server:
        source = DemoTokens(server.endpoint)
        assert source.token("tenant-a") == good
        with pytest.raises(SetupProblem, match="no token for tenant-x"):
            source.token("tenant-x")
    with pytest.raises(SetupProblem, match="gives no tokens"):
        DemoTokens(closed_port()).all()


def test_a_second_issuer_has_key_and_name_of_its_own() -> None:
    other = SigningKey.generate("other-key")
    value = token(other, "tenant-a", iss="second-issuer")
    assert jwt.get_unverified_header(value)["kid"] == "other-key"
    assert Endpoint("http", "h", 1).url not in repr(value)
