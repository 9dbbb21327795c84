"""API keys: 256 random bits, kept as hashes. It can't be guessed, so its hash needs no salt and no stretching."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

PREFIX = "ibk_"
SHOWN = len(PREFIX) + 6


@dataclass(frozen=True)
class KeyRecord:
    """What is kept of a key.

    Args:
        digest: SHA-256 of the whole key.
        hint: its beginning, by which people tell keys apart.
        created: seconds since the epoch.
        expires: when it stops working; None while it is the current one.
    """

    digest: str
    hint: str
    created: float
    expires: float | None = None

    def good(self, now: float) -> bool:
        return self.expires is None or now < self.expires


def new_key() -> tuple[str, KeyRecord]:
    """A key, and what to keep of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, KeyRecord(digest(key), key[:SHOWN] + "…", time.time())


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def rotated(records: Sequence[KeyRecord], new: KeyRecord, grace: float) -> list[KeyRecord]:
    """The records with a new current key; what was current works for `grace` seconds more, what expired is dropped."""
    now = time.time()
    kept = [record for record in records if record.good(now)]
    return [new, *(replace(record, expires=min(record.expires or now + grace, now + grace)) for record in kept)]


def secret_data(records: Sequence[KeyRecord]) -> dict[str, str]:
    """Of a Kubernetes Secret."""
    text = json.dumps([asdict(record) for record in records])
    return {"keys": base64.b64encode(text.encode()).decode()}


def of_secret(secret: dict[str, Any]) -> list[KeyRecord]:
    """The records in a Secret; none in one that is not ours."""
    try:
        entries = json.loads(base64.b64decode(secret["data"]["keys"]))
        return [KeyRecord(**entry) for entry in entries]
    except (KeyError, ValueError, TypeError):
        return []
