"""An in-toto statement about the run's files (predicate test-result), in a signed envelope when a key is given."""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from inferencebox.errors import SetupProblem
from inferencebox.report.model import Run

PAYLOAD_TYPE = "application/vnd.in-toto+json"
WARNED = ("error", "known gap", "not exercised")


def statement(run: Run, files: dict[str, bytes]) -> dict[str, object]:
    """The statement. Subjects are the run's record and the files drawn from it."""
    subjects = {"run.jsonl": run.digest, **{name: hashlib.sha256(body).hexdigest() for name, body in files.items()}}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": _result(run),
            "configuration": [
                {
                    "name": f"release {run.platform.get('release') or run.facts.get('release')}",
                    "annotations": {"provider": run.facts.get("provider"), "versions": dict(run.versions)},
                }
            ],
            "passedTests": [result.promise.id for result in run.of(verdict="passed")],
            "warnedTests": [result.promise.id for v in WARNED for result in run.of(verdict=v)],
            "failedTests": [result.promise.id for result in run.of(verdict="failed")],
        },
    }


def _result(run: Run) -> str:
    if run.of(verdict="failed"):
        return "FAILED"
    incomplete = run.exit_code is None or run.of(verdict="error") or not run.of(verdict="passed")
    return "WARNED" if incomplete or any(run.of(verdict=verdict) for verdict in WARNED) else "PASSED"


def attest(run: Run, files: dict[str, bytes], key: Path | None = None) -> str:
    """The statement as JSON; with an Ed25519 key (PEM) inside a DSSE envelope that it signs."""
    body = json.dumps(statement(run, files), indent=2).encode()
    if key is None:
        return body.decode() + "\n"
    signer = _load(key)
    signature = signer.sign(_pre_authentication(body))
    public = signer.public_key().public_bytes_raw()
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [
            {"keyid": hashlib.sha256(public).hexdigest(), "sig": base64.b64encode(signature).decode()},
        ],
    }
    return json.dumps(envelope, indent=2) + "\n"


def _pre_authentication(body: bytes) -> bytes:
    """What DSSE signs."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def _load(key: Path) -> Ed25519PrivateKey:
    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupProblem(f"The signing key {key} can't be read", "give an Ed25519 private key in PEM form") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise SetupProblem(f"The signing key {key} is not Ed25519", "make one: openssl genpkey -algorithm ed25519")
    return loaded
