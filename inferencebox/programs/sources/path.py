"""Programs that this machine has already, if they say that they are the pinned version."""

import re
import shutil
import subprocess
from pathlib import Path

from inferencebox.release import Item, VersionCheck

SECONDS = 10


def find_on_path(item: Item) -> Path | None:
    """The program on PATH, when its version satisfies the pin."""
    if not item.version_check:
        return None
    found = shutil.which(item.name)
    return Path(found) if found and says_its_version(Path(found), item.version_check) else None


def says_its_version(program: Path, check: VersionCheck) -> bool:
    """Ask a program for its version."""
    try:
        done = subprocess.run(
            [program, *check.arguments], capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return False
    return re.search(check.pattern, done.stdout + done.stderr) is not None
