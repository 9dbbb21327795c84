"""Waiting while things are set up, where no verdict hangs on it. Scenarios wait with `inferencebox.waiting`."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll(answer: Callable[[], T], seconds: float, every: float = 0.02, until: Callable[[T], object] = bool) -> T:
    """Ask until the answer is true, or as wanted, for so many seconds at most; gives the last answer.

    Args:
        every: seconds between two attempts.
        until: what is true of an answer that is as wanted.
    """
    deadline = time.monotonic() + seconds
    while not until(last := answer()) and time.monotonic() < deadline:
        time.sleep(every)
    return last
