"""Runs steps that depend on one another, those that don't at the same time."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Args:
        run: does it; raises when it can't be done.
        after: names of the steps that must be done before.
    """

    run: Callable[[], object]
    after: Sequence[str] = ()


@dataclass
class Timeline:
    """When each step began and how long it took, seconds since the graph was started."""

    began: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def sum(self) -> float:
        return sum(self.seconds.values())

    def critical_path(self, steps: Mapping[str, Step]) -> list[str]:
        """The chain of steps that decided when all was done, first to last."""
        path: list[str] = []
        candidates: Sequence[str] = list(self.seconds)
        while candidates:
            last = max(candidates, key=lambda name: self.began[name] + self.seconds[name])
            path.insert(0, last)
            candidates = steps[last].after
        return path


Listener = Callable[[str, str, float], None]


def run(steps: Mapping[str, Step], listener: Listener | None = None, width: int = 16) -> Timeline:
    """Do every step; when one fails, start no other, wait for those under way, and raise its error.

    Args:
        listener: called with (step, "begins" | "done" | "failed", seconds).
        width: how many steps may run at once.
    """
    tell = listener or (lambda _step, _what, _seconds: None)
    sorter = TopologicalSorter({name: set(step.after) for name, step in steps.items()})
    sorter.prepare()
    timeline, start, lock = Timeline(), time.monotonic(), threading.Lock()

    def timed(name: str) -> None:
        began = time.monotonic()
        with lock:
            timeline.began[name] = began - start
        tell(name, "begins", began - start)
        outcome = "failed"
        try:
            steps[name].run()
            outcome = "done"
        finally:
            seconds = time.monotonic() - began
            with lock:
                timeline.seconds[name] = seconds
            tell(name, outcome, seconds)

    running: dict[Future[None], str] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(width) as pool:
        while sorter.is_active():
            if failure is None:
                for name in sorter.get_ready():
                    running[pool.submit(timed, name)] = name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                failure = failure or future.exception()
                sorter.done(name)
    if failure is not None:
        raise failure
    return timeline
