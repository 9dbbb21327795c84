"""What runs our own programs as processes of their own, with this Python and all that it has installed."""

import signal
import sys

from inferencebox.errors import TERMINATED


def ibox(*words: str) -> list[str]:
    """Our command line, given these words."""
    return [sys.executable, "-m", "inferencebox.cli", *words]


def pytest(*words: str) -> list[str]:
    """The suite."""
    return [sys.executable, "-m", "pytest", *words]


def end_when_told() -> None:
    """On SIGTERM a command leaves by the way that it leaves after an error: what it runs ends, what it holds is given
    back. Without this it would be gone at once, and what it runs would go on with nobody to tell."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
