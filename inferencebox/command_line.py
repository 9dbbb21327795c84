"""What runs our own programs as processes of their own, with this Python and all that it has installed."""

import sys


def ibox(*words: str) -> list[str]:
    """Our command line, given these words."""
    return [sys.executable, "-m", "inferencebox.cli", *words]


def pytest(*words: str) -> list[str]:
    """The suite."""
    return [sys.executable, "-m", "pytest", *words]
