"""The cache of programs by content: published whole or not at all, verified on use, safe for two runs at once."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from inferencebox.errors import SetupProblem

KEY_LENGTH = 20
MANIFEST = "manifest.json"
FILES = "files"
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Entry:
    """One published thing.

    Args:
        folder: where its files are.
        program: path of the program below ``folder``; empty for a set of files.
    """

    folder: Path
    program: str

    @property
    def path(self) -> Path:
        return self.folder / self.program if self.program else self.folder


@dataclass(frozen=True)
class Facts:
    """What a manifest says beside the files."""

    name: str
    version: str
    source: str
    program: str
    seconds: float
    made_with: Mapping[str, str]


@dataclass(frozen=True)
class Kept:
    """An entry of the cache, and when it was used last, seconds since 1970."""

    name: str
    key: str
    used: float


def key_of(recipe: Mapping[str, Any]) -> str:
    """The same key for the same recipe, whatever the order of its parts."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def digest_of(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class Store:
    """Entries below ``<root>/store/<name>/<key>/``: ``manifest.json`` and ``files/``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def entries(self) -> Path:
        return self.root / "store"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def find(self, name: str, key: str) -> Entry | None:
        """The entry if it is there, with every file checked against its manifest."""
        home = self._home(name, key)
        manifest = _read_manifest(home)
        if manifest is None:
            return None
        damaged = _damage(home / FILES, manifest["files"])
        if damaged:
            raise SetupProblem(
                f"{name} in the cache is not what was put there: {damaged} of {home / FILES} has another checksum",
                f"ibox build --again {name}",
            )
        _mark_used(home)
        return Entry(home / FILES, manifest["facts"]["program"])

    def kept(self) -> list[Kept]:
        """Everything published, the one that was not used for longest first."""
        homes = self.entries.glob(f"*/*/{MANIFEST}")
        found = [Kept(path.parent.parent.name, path.parent.name, path.stat().st_atime) for path in homes]
        return sorted(found, key=lambda each: each.used)

    def size_of(self, kept: Kept) -> int:
        """Bytes of an entry's files; a file that several entries share counts in each."""
        return sum(path.lstat().st_size for path in self._home(kept.name, kept.key).rglob("*") if not path.is_dir())

    def forget(self, kept: Kept) -> None:
        """Remove an entry, at once for whoever looks for it."""
        with self.lock(kept.name, on_wait=lambda: None), self.workspace(kept.name, 0) as work:
            self._home(kept.name, kept.key).rename(work / kept.key)

    def home_of(self, path: Path) -> Path:
        """The entry, manifest and all, that a path of this cache is in."""
        name, key, *_ = path.relative_to(self.root / "store").parts
        return self._home(name, key)

    def adopt(self, name: str, key: str, entry: Path) -> bool:
        """Copy an entry of another cache into this one, in one step and verified; whether it was new here."""
        if _read_manifest(self._home(name, key)):
            return False
        manifest = _read_manifest(entry)
        damaged = "its manifest" if manifest is None else _damage(entry / FILES, manifest["files"])
        if damaged:
            raise SetupProblem(f"{name} in {entry.parent.parent} is damaged: {damaged}", "copy the bundle again")
        with self.lock(name, on_wait=lambda: None), self.workspace(name, 0) as work:
            shutil.copytree(entry, work / key, symlinks=True)
            self._homes(name).mkdir(parents=True, exist_ok=True)
            if not self._home(name, key).exists():
                (work / key).rename(self._home(name, key))
        return True

    def last_seconds(self, name: str) -> float | None:
        """How long this took the last time, whatever its version was."""
        manifests = sorted(self._homes(name).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(manifests):
            manifest = _read_manifest(path.parent)
            if manifest is not None:
                return float(manifest["facts"]["seconds"])
        return None

    def publish(self, key: str, staged: Path, facts: Facts) -> Entry:
        """Move a finished folder into the cache in one step."""
        home = self._home(facts.name, key)
        fresh = staged.with_name(f"{staged.name}.entry")
        fresh.mkdir()
        staged.rename(fresh / FILES)
        manifest = {"facts": asdict(facts), "files": _digests(fresh / FILES)}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        home.parent.mkdir(parents=True, exist_ok=True)
        if home.exists():
            home.rename(staged.with_name(f"{staged.name}.old"))
        fresh.rename(home)
        return Entry(home / FILES, facts.program)

    @contextmanager
    def workspace(self, name: str, needs_bytes: int) -> Iterator[Path]:
        """An empty folder for one build, on the cache's own disk, removed afterwards. Hold the lock of ``name``."""
        self.require_space(self.root, needs_bytes)
        work = self.root / "work"
        with self._writing(work):
            work.mkdir(parents=True, exist_ok=True)
            for stale in work.glob(f"{name}@*"):
                _remove(stale)
            folder = work / f"{name}@{os.getpid()}"
            folder.mkdir()
        try:
            yield folder
        except OSError as error:
            if error.errno in DISK_FAULTS:
                raise self._unwritable(folder, error) from error
            raise
        finally:
            _remove(folder)

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """One run at a time; ``on_wait`` is called when another run has it and we wait for its end."""
        locks = self.root / "locks"
        with self._writing(locks):
            locks.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def require_space(
        self,
        folder: Path,
        needs_bytes: int,
        fix: str = "make room there, or set IBOX_CACHE to a folder on a larger disk",
    ) -> None:
        """Say that the disk is nearly full before it is."""
        free = shutil.disk_usage(existing_parent(folder)).free
        if free < needs_bytes:
            raise SetupProblem(
                f"{free / 1e9:.1f} GB free on the disk of {folder}, {needs_bytes / 1e9:.1f} GB are needed", fix
            )

    def _homes(self, name: str) -> Path:
        return self.entries / name

    def _home(self, name: str, key: str) -> Path:
        return self._homes(name) / key

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritable(folder, error) from error

    def _unwritable(self, folder: Path, error: OSError) -> SetupProblem:
        return SetupProblem(
            f"the cache {self.root} cannot be written: {folder}: {error.strerror or error}",
            "make room there, or set IBOX_CACHE to a folder that you may write",
        )


def _mark_used(home: Path) -> None:
    """By the time of last access, which file systems themselves keep loosely or not at all."""
    manifest = home / MANIFEST
    with contextlib.suppress(OSError):  # a cache that others own can be used, too
        os.utime(manifest, (time.time(), manifest.stat().st_mtime))


def _read_manifest(home: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((home / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest


def _digests(folder: Path) -> dict[str, str]:
    """Digest of each file, target of each link, by path below ``folder``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    with ThreadPoolExecutor() as pool:
        found = pool.map(_fingerprint, paths)
        return {str(path.relative_to(folder)): value for path, value in zip(paths, found, strict=True)}


def _damage(folder: Path, digests: Mapping[str, str]) -> str | None:
    """The first file that is not as recorded."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _fingerprint(folder / name), digests)
        for (name, expected), actual in zip(digests.items(), found, strict=True):
            if actual != expected:
                return name
    return None


def _fingerprint(path: Path) -> str:
    if path.is_symlink():
        return f"link:{path.readlink()}"
    try:
        return digest_of(path)
    except OSError as error:
        return f"unreadable:{error.strerror}"


def existing_parent(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _remove(folder: Path) -> None:
    """Remove a folder that may hold read-only folders, as unpacked modules do."""
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
