"""The processes of the box, asked who they are: seen from outside, so that nothing has to run inside."""

import mmap
import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from inferencebox.platform import RunningProgram
from inferencebox.release import ProgramPin, Release

from .box import NETNS_DIR, Box

TIERS = {"envoy-gateway": "tier-1", "istio-system.istio-ingressgateway": "tier-2"}
ASKING_SECONDS = 20.0


def running(
    box: Box, release: Release, binaries: Mapping[str, Path], names: Collection[str] = ()
) -> list[RunningProgram]:
    """Every process of the box that runs a pinned program."""
    by_file = {_file(_real_program(path)): name for name, path in binaries.items() if name in release.programs}
    networks = {_file(Path(f"/proc/{box.pid}/root{NETNS_DIR}/{pod}")): tier for pod, tier in TIERS.items()}
    found, told = [], {}
    for process in _processes(box):
        name = by_file.get(_file(process / "exe"))
        if name and (not names or name in names):
            if name not in told:  # the very file that runs, so one answer for all its processes
                told[name] = _told(binaries[name], release.programs[name])
            tier = networks.get(_file(process / "ns/net"), "") if name == "envoy" else ""
            found.append(RunningProgram(name, int(process.name), _started(process), told[name], tier))
    return found


def _processes(box: Box) -> Iterator[Path]:
    own = _file(Path(f"/proc/{box.pid}/ns/pid"))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and own is not None and _file(folder / "ns/pid") == own:
            yield folder


def _file(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to; nothing if it leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _real_program(path: Path) -> Path:
    """The program that a launcher of unpacked packages starts; any other program is itself."""
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return path
    target = re.search(r'^exec "\$here"(/\S+)', path.read_text(), re.MULTILINE)
    return path.resolve().parent / target[1].lstrip("/") if target else path


def _started(process: Path) -> str:
    return (process / "stat").read_text().rsplit(")", 1)[1].split()[19]


def _told(program: Path, pin: ProgramPin) -> str:
    """What the program prints about its version; of one that prints nothing, what its compiler wrote into it."""
    if pin.version_check is None:
        return _module_version(program, pin.module.module if pin.module else pin.name)
    command = [str(program), *pin.version_check.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASKING_SECONDS, check=False)
    return " ".join((done.stdout + done.stderr).split())


def _module_version(executable: Path, module: str) -> str:
    """Go writes the versions of all modules into a program (`go version -m` shows them)."""
    with executable.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(rb"\n(?:mod|dep)\t(" + re.escape(module.encode()) + rb")\t(\S+)", content)
        parts = [bytes(part).decode() for part in found.groups()] if found else []
    return " ".join(parts)
