"""Waiting while things are set up, where no verdict hangs on it. Scenarios wait with `inferencebox.waiting`."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll(answer: Callable[[], T], seconds: float, every: float = 0.02) -> T:
    """Ask until the answer is true, for so many seconds at most, with pauses of `every` seconds; the last answer."""
    deadline = time.monotonic() + seconds
    while not (last := answer()) and time.monotonic() < deadline:
        time.sleep(every)
    return last
