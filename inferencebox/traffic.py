"""Request streams that run across a change, and bursts. Ask the window between two marks, not the last reply.

A stream is open-loop: requests are due at fixed times, whether or not earlier ones were answered, so that a stalled
platform can't slow its own judge down. It is bounded in number and time and always stopped on leaving.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from inferencebox import evidence
from inferencebox.checks import Check, answered
from inferencebox.probes.http import Call, CallWithin, Observation, quietly

THREADS = 64
REQUESTS = 50_000
SECONDS = 900.0


@dataclass(frozen=True)
class Sample:
    """One request of a stream; times in seconds since the stream began."""

    due: float
    start: float
    end: float
    status: int | None
    error: str | None
    pod: str | None
    version: str | None
    reason: str | None
    """Why it counts as an error, or None."""

    @property
    def ok(self) -> bool:
        return self.reason is None

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Window:
    """The requests sent between two moments of a stream."""

    samples: tuple[Sample, ...] = field(repr=False)

    @property
    def requests(self) -> int:
        return len(self.samples)

    @property
    def failed(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if not sample.ok)

    @property
    def errors(self) -> int:
        return len(self.failed)

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.samples else 0.0

    @property
    def error_window_ms(self) -> float:
        """From the sending of the first failed request to the end of the last one; 0 without errors."""
        failed = self.failed
        return 1000 * (max(s.end for s in failed) - min(s.start for s in failed)) if failed else 0.0

    @property
    def by_status(self) -> dict[str, int]:
        """Counts by status; transport failures under their own name."""
        return dict(Counter(sample.error or str(sample.status) for sample in self.samples))

    @property
    def by_pod(self) -> dict[str, int]:
        return dict(Counter(sample.pod for sample in self.samples if sample.pod))

    @property
    def by_version(self) -> dict[str, int]:
        return dict(Counter(sample.version for sample in self.samples if sample.version))

    @property
    def server_errors(self) -> int:
        return sum(1 for sample in self.samples if sample.status is not None and sample.status >= 500)

    @property
    def late(self) -> float:
        """Seconds by which the latest request missed its time: above a second or so, the stream was not steady."""
        return max((sample.start - sample.due for sample in self.samples), default=0.0)

    def percentile(self, percent: float) -> float:
        """Seconds within which so many percent of the good replies came (nearest rank); infinite without any."""
        times = sorted(sample.seconds for sample in self.samples if sample.ok)
        return times[max(0, math.ceil(percent / 100 * len(times)) - 1)] if times else math.inf

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p95(self) -> float:
        return self.percentile(95)

    @property
    def achieved_parallelism(self) -> int:
        """The most requests that were under way at one moment."""
        moments = sorted([(s.start, 1) for s in self.samples] + [(s.end, -1) for s in self.samples])
        most = now = 0
        for _, step in moments:
            now += step
            most = max(most, now)
        return most

    def __str__(self) -> str:
        text = f"{self.requests} requests, {self.errors} errors"
        if failed := self.failed:
            text += f" within {self.error_window_ms:.0f} ms, the first: {failed[0].reason}"
        return f"{text}; p50 {1000 * self.p50:.0f} ms, p95 {1000 * self.p95:.0f} ms; {self.by_status}"


class Stream:
    """A steady stream of requests in background threads; use it as a context manager.

    Args:
        probe: sends one request.
        rate: requests per second.
        ok: what a good reply is; everything else is an error of the window.
        threads: most requests under way at once; default enough for replies that take 2 s.
        requests, seconds: the stream ends by itself after so many.
    """

    def __init__(
        self,
        probe: Callable[[], Observation],
        rate: float = 20.0,
        ok: Check | None = None,
        threads: int | None = None,
        requests: int = REQUESTS,
        seconds: float = SECONDS,
    ) -> None:
        self.rate = rate
        self.marks: dict[str, float] = {}
        self._probe = quietly(probe)
        self._title = str(probe)
        self._command = probe.as_curl() if isinstance(probe, Call | CallWithin) else ""
        self._ok = ok or answered(200)
        self._limit = min(requests, int(rate * seconds))
        self._threads = [
            threading.Thread(target=self._work, name=f"stream-{i}", daemon=True)
            for i in range(threads or min(THREADS, max(4, math.ceil(rate * 2))))
        ]
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._tickets = 0
        self._under_way: dict[int, float] = {}
        self._samples: list[Sample] = []
        self._problem: BaseException | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        evidence.note(f"stream: {self._title}", f"{self.rate:g} a second; {Window(self.samples)}\n{self._command}")
        if problem is None:
            self._raise_problem()

    def cease(self) -> None:
        """Send no more; what is under way goes on."""
        self._stop.set()

    def stop(self) -> None:
        """Send no more and wait for what is under way."""
        self.cease()
        for thread in self._threads:
            thread.join()

    @property
    def now(self) -> float:
        """Seconds since the stream began."""
        return time.monotonic() - self._began

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All requests answered so far, in the order of sending."""
        with self._changed:
            return tuple(sorted(self._samples, key=lambda sample: sample.start))

    def mark(self, name: str) -> float:
        """Name this moment."""
        self.marks[name] = self.now
        return self.marks[name]

    def collect(self, requests: int, within: float = 60.0) -> Window:
        """Wait for so many further requests, sent and ended from now on; give them."""
        start = self.now
        with self._changed:
            enough = self._changed.wait_for(
                lambda: self._problem is not None or self._count_since(start) >= requests, within
            )
        self._raise_problem()
        window = Window(tuple(sample for sample in self.samples if sample.start >= start))
        if not enough:
            raise AssertionError(f"wanted {requests} more requests within {within} s, got {window}")
        return window

    def window(self, start: str | None = None, end: str | None = None) -> Window:
        """The requests sent between two marks (or from the beginning, or until now), once they have ended."""
        first = self.marks[start] if start else 0.0
        last = self.marks[end] if end else self.now
        with self._changed:
            self._changed.wait_for(lambda: all(sent >= last for sent in self._under_way.values()))
        self._raise_problem()
        return Window(tuple(sample for sample in self.samples if first <= sample.start < last))

    def plot(self, error_name: str = "errors") -> dict[str, object]:
        """For `story.plot`: every request, the marks, and from where to where there were errors."""
        samples = self.samples
        failed = [sample for sample in samples if not sample.ok]
        windows = [[min(s.start for s in failed), max(s.end for s in failed), error_name]] if failed else []
        points = [[sample.start, 1000 * sample.seconds, sample.status if sample.ok else None] for sample in samples]
        marks = [[second, name] for name, second in self.marks.items()]
        return {"kind": "timeline", "points": points, "marks": marks, "windows": windows}

    def _count_since(self, start: float) -> int:
        return sum(1 for sample in self._samples if sample.start >= start)

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _take_ticket(self) -> int | None:
        with self._changed:
            if self._stop.is_set() or self._tickets >= self._limit:
                return None
            self._tickets += 1
            return self._tickets - 1

    def _work(self) -> None:
        while (ticket := self._take_ticket()) is not None:
            due = ticket / self.rate
            if self._stop.wait(max(0.0, due - self.now)):
                return
            try:
                self._send(ticket, due)
            except BaseException as problem:  # goes to the thread that asked for the stream
                self._give_up(problem)
                return

    def _give_up(self, problem: BaseException) -> None:
        self._stop.set()
        with self._changed:
            self._problem = self._problem or problem
            self._under_way.clear()
            self._changed.notify_all()

    def _send(self, ticket: int, due: float) -> None:
        with self._changed:
            start = self._under_way[ticket] = self.now
        seen = self._probe()
        sample = _sample(due, start, self.now, seen, self._ok)
        with self._changed:
            self._samples.append(sample)
            self._under_way.pop(ticket, None)
            self._changed.notify_all()


def _sample(due: float, start: float, end: float, seen: Observation, ok: Check) -> Sample:
    error = seen.error.value if seen.error else None
    return Sample(due, start, end, seen.status, error, seen.pod, seen.model_version, ok(seen))


def stream(probe: Callable[[], Observation], rate: float = 20.0, ok: Check | None = None) -> Stream:
    """A steady stream with the usual bounds: ``with stream(call, rate=20) as s: s.mark("before") ...``."""
    return Stream(probe, rate=rate, ok=ok)


def burst(probe: Callable[[], Observation], n: int, parallel: int | None = None, ok: Check | None = None) -> Window:
    """Send n requests, `parallel` (default all) at once; see `Window.achieved_parallelism` for how many really were."""
    width = min(n, parallel or n)
    send, good = quietly(probe), ok or answered(200)
    shares = [len(range(worker, n, width)) for worker in range(width)]
    gate = threading.Barrier(width + 1)
    began: list[float] = []
    results: list[list[Sample]] = [[] for _ in shares]
    problems: list[BaseException] = []

    def work(worker: int) -> None:
        gate.wait()
        try:
            for _ in range(shares[worker]):
                start = time.monotonic() - began[0]
                seen = send()
                results[worker].append(_sample(0.0, start, time.monotonic() - began[0], seen, good))
        except BaseException as problem:  # goes to the caller below
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(width)]
    for thread in threads:
        thread.start()
    began.append(time.monotonic())
    gate.wait()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    window = Window(_in_order(results))
    evidence.note(f"burst: {probe}", f"{window}; {window.achieved_parallelism} at once")
    return window


def _in_order(results: Sequence[Sequence[Sample]]) -> tuple[Sample, ...]:
    return tuple(sorted((sample for samples in results for sample in samples), key=lambda sample: sample.start))
