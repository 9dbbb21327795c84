"""Folders by which the processes of one test run talk, and the clearing of those that killed runs left."""

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "inferencebox-run-"


def make() -> Path:
    """A folder of this process's own; it is called after the process."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def sweep() -> list[Path]:
    """Remove the folders of processes that are gone; they are the answer."""
    left = [folder for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if _is_orphan(folder)]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return left


def _is_orphan(folder: Path) -> bool:
    owner = folder.name.removeprefix(PREFIX).partition("-")[0]
    return not (owner.isdigit() and is_alive(int(owner))) and os.access(folder, os.W_OK)


def is_alive(process: int) -> bool:
    """Whether there is a process of this number, whoever it belongs to."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
