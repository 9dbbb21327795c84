"""Names things by what they are made from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(files: Iterable[Path], *texts: str) -> str:
    """A short digest of files (their names and bytes) and texts."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()[:20]
