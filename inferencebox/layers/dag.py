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
            candidates = steps[last].after if last in steps else ()
        return path


Listener = Callable[[str, str, float], None]


class StepsFailed(Exception):
    """Steps that failed, each with its error, and the steps that were not begun for that; and how long all took."""

    def __init__(self, errors: Mapping[str, Exception], skipped: Mapping[str, str], timeline: Timeline) -> None:
        self.errors, self.skipped, self.timeline = dict(errors), dict(skipped), timeline
        words = [f"{name}: {error}" for name, error in self.errors.items()]
        words += [f"{name} was not begun for want of {cause}" for name, cause in self.skipped.items()]
        super().__init__("; ".join(words))


def run(
    steps: Mapping[str, Step], listener: Listener | None = None, width: int = 16, keep_going: bool = False
) -> Timeline:
    """Do every step; when one fails, start no other, wait for those under way, and raise its error.

    Args:
        listener: called with (step, "begins" | "done" | "failed" | "skipped", seconds).
        width: how many steps may run at once.
        keep_going: when a step fails, still do all that do not depend on it.

    Raises:
        StepsFailed: with `keep_going`, what failed and what was left out for that.
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
    errors: dict[str, BaseException] = {}
    skipped: dict[str, str] = {}
    with ThreadPoolExecutor(width) as pool:
        while sorter.is_active():
            for name in sorter.get_ready() if keep_going or not errors else ():
                cause = next((each for each in steps[name].after if each in errors or each in skipped), None)
                if cause is None:
                    running[pool.submit(timed, name)] = name
                else:
                    skipped[name] = skipped.get(cause, cause)
                    tell(name, "skipped", 0.0)
                    sorter.done(name)
            if not running:
                if errors and not keep_going:
                    break
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if error := future.exception():
                    errors[name] = error
                sorter.done(name)
    _raise(errors, skipped, keep_going, timeline)
    return timeline


def _raise(
    errors: Mapping[str, BaseException], skipped: Mapping[str, str], keep_going: bool, timeline: Timeline
) -> None:
    first = next((error for error in errors.values() if not keep_going or not isinstance(error, Exception)), None)
    if first is not None:
        raise first
    if errors:
        failed = {name: error for name, error in errors.items() if isinstance(error, Exception)}
        raise StepsFailed(failed, skipped, timeline)
