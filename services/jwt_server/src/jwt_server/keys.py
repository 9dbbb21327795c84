"""Signing keys in a directory: one `KID.pem` each, and an empty `KID.retired` for each key that is gone."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

log = logging.getLogger("jwt-server")

_KEY_FILE = re.compile(r"jwt-server-key-(\d+)\.(pem|retired)")


class KeyProblem(Exception):
    """The key directory can't be used; the text is for the person who runs the server."""


@dataclass(frozen=True)
class SigningKey:
    kid: str
    private: rsa.RSAPrivateKey

    def jwk(self) -> dict[str, str]:
        public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {"kty": "RSA", "n": public["n"], "e": public["e"], "alg": "RS256", "use": "sig", "kid": self.kid}


class KeyStore:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self._keys: Sequence[SigningKey] = ()

    def live(self) -> Sequence[SigningKey]:
        """All keys that are not retired, newest first. Files are read again only when something has changed."""
        live = [path for _, path in sorted(self._list().items(), reverse=True) if path.suffix == ".pem"]
        try:
            stats = [path.stat() for path in live]
        except OSError as error:
            raise KeyProblem(f"cannot read key directory {self.directory}: {error.strerror}") from None
        seen = frozenset((p.name, s.st_mtime_ns, s.st_ino) for p, s in zip(live, stats, strict=True))
        if seen != self._seen:
            self._keys = tuple(_read(path) for path in live)
            self._seen = seen
            log.info("signing keys: %s", ", ".join(key.kid for key in self._keys) or "none")
        return self._keys

    def live_or_last_good(self) -> Sequence[SigningKey]:
        """For a running server: a directory that is broken for a moment must not take the keys away."""
        before = self._keys
        try:
            return self.live() or before
        except KeyProblem as problem:
            log.error("keeping the keys read before: %s", problem)
            return before

    def ensure(self) -> None:
        """Make the directory and the first key if they are missing."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise KeyProblem(f"cannot create key directory {self.directory}: {error.strerror}") from None
        files = self._list()
        if not any(path.suffix == ".pem" for path in files.values()):
            # Another server on the same empty directory may be quicker: then its key is ours too.
            with contextlib.suppress(FileExistsError):
                self._add(max(files, default=0) + 1)
        self.live()

    def rotate(self) -> str:
        """Add a key that is newer than all others, retired ones included."""
        while True:
            with contextlib.suppress(FileExistsError):
                return self._add(max(self._list(), default=0) + 1)

    def _add(self, number: int) -> str:
        kid = f"jwt-server-key-{number}"
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            _write_new(self.directory / f"{kid}.pem", pem)
        except FileExistsError:
            raise
        except OSError as error:
            raise KeyProblem(f"cannot write a key to {self.directory}: {error.strerror}") from None
        return kid

    def retire(self, kid: str) -> None:
        kids = [key.kid for key in self.live()]
        if kid not in kids:
            raise KeyProblem(f"no key {kid!r} in {self.directory}; there are: {', '.join(kids) or 'none'}")
        if len(kids) == 1:
            raise KeyProblem(f"{kid} is the only key left: rotate first, then retire it")
        try:
            (self.directory / f"{kid}.retired").touch(mode=0o600)
            (self.directory / f"{kid}.pem").unlink()
        except OSError as error:
            raise KeyProblem(f"cannot retire {kid} in {self.directory}: {error.strerror}") from None

    def _list(self) -> dict[int, Path]:
        """Key number -> its file. A key that was being retired when the power went has both: it is retired."""
        files: dict[int, Path] = {}
        try:
            for path in self.directory.iterdir():
                if match := _KEY_FILE.fullmatch(path.name):
                    number = int(match[1])
                    if number not in files or path.suffix == ".retired":
                        files[number] = path
        except OSError as error:
            raise KeyProblem(f"cannot read key directory {self.directory}: {error.strerror}") from None
        return files


def _read(path: Path) -> SigningKey:
    try:
        if path.stat().st_mode & 0o007:
            raise KeyProblem(f"{path} can be read by everybody on this machine: run chmod 600 on it")
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyProblem(f"cannot read key {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise KeyProblem(f"{path} holds no unencrypted PEM private key") from None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise KeyProblem(f"{path} holds a key that is not RSA")
    return SigningKey(path.stem, private)


def _write_new(path: Path, content: bytes) -> None:
    """Write the file whole or not at all, never over another one; mkstemp makes it 0600."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
