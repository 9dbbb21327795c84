"""One bring-up of a platform at a time on this machine, whoever provides it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nobody else brings the platform with this state folder up meanwhile. The kernel lets go for a killed process."""
    folder = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
