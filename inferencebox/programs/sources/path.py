"""Programs that this machine has already, if they say that they are the pinned version."""

import re
import shutil
import subprocess
from pathlib import Path

from inferencebox.release import ProgramPin, VersionCheck

SECONDS = 10


def find_on_path(pin: ProgramPin) -> Path | None:
    """The program on PATH, when its version satisfies the pin."""
    found = shutil.which(pin.name)
    if not found or not pin.version_check:
        return None
    return Path(found) if says_its_version(Path(found), pin.version_check) else None


def says_its_version(program: Path, check: VersionCheck) -> bool:
    """Ask a program for its version."""
    try:
        done = subprocess.run(
            [program, *check.arguments], capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return False
    return re.search(check.pattern, done.stdout + done.stderr) is not None
