"""Bundles: everything a release needs in one folder, made on a connected machine, used where there is no network.

A bundle is a copy of the cache's entries (programs, images, charts and CRDs) with a ``SHA256SUMS`` over all of them,
which ``sha256sum --check`` reads too. Entries are found by what they are made from, so both machines need the same
checkout.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from inferencebox import programs
from inferencebox.errors import SetupProblem
from inferencebox.images.workshop import Workshop
from inferencebox.paths import cache_dir
from inferencebox.programs import Progress
from inferencebox.programs.progress import Silent
from inferencebox.programs.store import Store, digest_of
from inferencebox.providers.kind import node
from inferencebox.providers.kubernetes.images import obtainable
from inferencebox.release import Release

SUMS = "SHA256SUMS"
ENTRIES = "entries"
RELEASE_FILE = "release.yaml"
TOOLS = ("kind", "kubectl", "helm")
"""Programs that handle a cluster from outside."""
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Contents:
    """What a bundle has.

    Args:
        release: name of the release it is for.
        entries: how many programs, images and sets of files.
        size: bytes.
    """

    release: str
    entries: int
    size: int


def create(target: Path, release: Release, provider: str, progress: Progress | None = None) -> Contents:
    """Get everything that a provider needs and copy it into a folder. Goes on where an interrupted one ended.

    Args:
        target: the bundle's folder; new, or one that this release's bundle was begun in.
        release: whose programs and images.
        provider: ``kind`` or ``local``.
        progress: is told what happens.
    """
    _require_ours(target, release)
    store = Store(cache_dir())
    homes = [store.home_of(path) for path in _everything(release, provider, progress)]
    told = progress or Silent()
    _require_space(target, homes)
    try:
        _fill(target, release, homes, told)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupProblem(f"the bundle {target} cannot be written: {reason}", "name a folder with room") from error
    return _contents(target, release.name)


def verify(source: Path) -> Contents:
    """Hold every file of a bundle against its checksum.

    Raises:
        SetupProblem: it is no bundle, is not finished, or something in it is missing, changed or added.
    """
    expected = _sums(source)
    actual = _digests(source)
    for name, digest in expected.items():
        if name not in actual:
            raise SetupProblem(f"{name} is missing from the bundle {source}", "copy the bundle again")
        if actual[name] != digest:
            raise SetupProblem(f"{name} in the bundle {source} has another checksum", "do not use it; copy it again")
    if added := sorted(set(actual) - set(expected)):
        raise SetupProblem(f"{added[0]} in the bundle {source} is not of it", "do not use it; copy it again")
    return _contents(source, Release.load(source / RELEASE_FILE).name)


def load(source: Path, progress: Progress | None = None) -> Contents:
    """Verify a bundle, then put what it has into this machine's cache."""
    contents = verify(source)
    store, told = Store(cache_dir()), progress or Silent()
    homes = [home for home in sorted((source / ENTRIES).glob("*/*")) if home.is_dir()]
    store.require_space(store.root, contents.size)
    for home in homes:
        told.begin(home.parent.name, "", "loading", 1)
        new = store.adopt(home.parent.name, home.name, home)
        told.end(home.parent.name, "loaded" if new else "in the cache already")
    return contents


def _everything(release: Release, provider: str, progress: Progress | None) -> Iterator[Path]:
    if provider == "local":
        needed = {name for name, layer in release.layers.items() if not layer.needs_nodes}
        names = [name for name, item in release.items.items() if item.layer in needed]
        yield from programs.provide(release, names, progress, use_path=False).values()
        return
    files = [pin.name for pin in release.files.values()]
    yield from programs.provide(release, [*TOOLS, *files], progress, use_path=False).values()
    names, left_out = obtainable(release)
    for name, why in left_out.items():
        (progress or Silent()).end(name, f"left out: {why}")
    yield from Workshop(release, progress).provide([name for name in names if name != node.IMAGE]).values()
    yield node.provide(release, progress)


def _fill(target: Path, release: Release, homes: Iterable[Path], told: Progress) -> None:
    """Copy what is missing; the checksums come last, so that an unfinished bundle has none."""
    target.mkdir(parents=True, exist_ok=True)
    (target / SUMS).unlink(missing_ok=True)
    (target / RELEASE_FILE).write_text(yaml.safe_dump(release.model_dump(mode="json", exclude_defaults=True)))
    for home in homes:
        copy = target / ENTRIES / home.parent.name / home.name
        if not copy.exists():
            told.begin(home.parent.name, "", "copying", 1)
            _copy(home, copy)
            told.end(home.parent.name, "copied")
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(_digests(target).items()))
    partial = target / f"{SUMS}{UNFINISHED}"
    partial.write_text(sums)
    partial.rename(target / SUMS)


def _require_ours(target: Path, release: Release) -> None:
    """A folder with anything else in it is left alone."""
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if there - {SUMS, ENTRIES, RELEASE_FILE, f"{SUMS}{UNFINISHED}"}:
        raise SetupProblem(f"{target} is not empty and no bundle", "name a new folder")
    if RELEASE_FILE in there and (found := Release.load(target / RELEASE_FILE).name) != release.name:
        raise SetupProblem(f"{target} is a bundle of release {found}", "name a new folder")


def _require_space(target: Path, homes: Iterable[Path]) -> None:
    missing = [home for home in homes if not (target / ENTRIES / home.parent.name / home.name).exists()]
    Store(target).require_space(target, sum(_size(home) for home in missing), fix="name a folder on a larger disk")


def _copy(home: Path, copy: Path) -> None:
    """Whole or not at all."""
    partial = copy.with_name(f"{copy.name}{UNFINISHED}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(home, partial, symlinks=True)
    partial.rename(copy)


def _sums(source: Path) -> Mapping[str, str]:
    try:
        lines = (source / SUMS).read_text().splitlines()
    except OSError as error:
        raise SetupProblem(f"{source} is no bundle, or it is not finished", f"ibox bundle create {source}") from error
    pairs = [line.partition("  ") for line in lines]
    return {name: digest for digest, _, name in pairs}


def _digests(folder: Path) -> dict[str, str]:
    """By path, the checksum of every file. A link's is that of what it says."""
    paths = [path for path in _files(folder) if path.parent != folder or path.name == RELEASE_FILE]
    with ThreadPoolExecutor() as pool:
        return {
            path.relative_to(folder).as_posix(): digest
            for path, digest in zip(paths, pool.map(digest_of, paths), strict=True)
        }


def _files(folder: Path) -> Sequence[Path]:
    """Regular files; links within entries are in the entries' own manifests."""
    found = folder.rglob("*")
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and UNFINISHED not in str(path))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _contents(folder: Path, release: str) -> Contents:
    return Contents(release, len(list((folder / ENTRIES).glob("*/*"))), _size(folder))
