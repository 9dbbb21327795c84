"""Wheels from PyPI by checksum, with whichever of uv and pip is here."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.release import WheelSource

MISMATCH = ("hash mismatch", "do not match the hashes")
INSTALLER_FIX = "pip install uv"
INDEX_FIX = "check that `pip download` reaches its package index, then run this again"


def uv() -> list[str]:
    """The uv command, from PATH or from this environment; empty when there is none."""
    if shutil.which("uv"):
        return ["uv"]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else []


def installer() -> list[str]:
    """The command that installs wheels here, up to its ``install``; empty when there is none."""
    if uv():
        return [*uv(), "pip", "install", "--python", sys.executable, "--link-mode", "copy"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    return []


def unpack_wheel(wheel: WheelSource, work: Path, commands: Commands) -> Path:
    """Put a wheel's files into a folder below ``work``; pip or uv compares the checksum before it unpacks."""
    command = installer()
    if not command:
        raise Unavailable("neither uv nor pip is here", INSTALLER_FIX)
    target = work / "wheel"
    requirements = work / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    requirements.write_text(f"{wheel.requirement} {hashes}\n")
    options: list[str | Path] = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--target",
        target,
        "-r",
        requirements,
    ]
    name = f"wheel-{wheel.requirement.partition('=')[0]}"
    try:
        commands.run(name, [*command, *options], cwd=work, env=os.environ)
    except CommandFailed as failure:
        if any(words in failure.tail.lower() for words in MISMATCH):
            raise SetupProblem(
                f"the wheel {wheel.requirement} has another checksum than the release pins",
                f"do not use it; see {failure.log}, then compare with the publisher's checksum",
            ) from failure
        raise Unavailable(f"PyPI gives no {wheel.requirement} ({failure})", INDEX_FIX) from failure
    return target
