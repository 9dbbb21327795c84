"""What was asked and seen while a scenario ran: steps, exchanges, notes and plots, with secrets removed.

Probes call `exchange`, everything else calls `note`, `plot` and `step`. Without a current recorder (a script, a
selftest) they cost nothing and do nothing. Background threads are welcome: what they record belongs to the step that is
open in the scenario at that moment.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from inferencebox.redaction import (
    Leak,
    forget_secrets,
    redact,
    redact_text,
    register_secret,
    scan,
)

__all__ = [
    "Leak",
    "Recorder",
    "current",
    "exchange",
    "forget_secrets",
    "note",
    "plot",
    "recording",
    "redact",
    "redact_text",
    "register_secret",
    "scan",
    "step",
]

Event = dict[str, object]
Sink = Callable[[Event], None]

EXCHANGES_PER_STEP = 40
"""How many exchanges of one step are written in full; of the rest the number and the last one are kept."""
BODY_LIMIT = 16_384
"""Characters of one request or response body that are kept."""

_step: ContextVar[str] = ContextVar("inferencebox_step", default="")
_active: "Recorder | None" = None
_active_lock = threading.Lock()


@dataclass
class _Seen:
    """How much of one step has been written."""

    count: int = 0
    last: Event | None = None


@dataclass
class Recorder:
    """Turns what happens in one scenario into events and hands them, redacted, to the sinks.

    Args:
        scenario: the scenario's ID; part of every event.
        item: the test's node ID: parametrised scenarios have several.
        sinks: called with each event, one at a time.
    """

    scenario: str
    item: str
    sinks: tuple[Sink, ...] = ()
    _open: list[str] = field(default_factory=list)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _left: tuple[BaseException, str] | None = None

    def emit(self, event_name: str, /, **fields: object) -> None:
        """Writes one event to all sinks."""
        event: Event = {"event": event_name, "at": time.time(), "scenario": self.scenario, "item": self.item}
        event |= {name: redact(value) for name, value in fields.items()}
        with self._lock:
            for sink in self.sinks:
                sink(event)

    def here(self) -> str:
        """The innermost open step: of this thread, else of the scenario. Empty outside all steps."""
        with self._lock:
            mine = _step.get()
            return mine if mine in self._open else (self._open[-1] if self._open else "")

    @contextlib.contextmanager
    def step(self, title: str, kind: str = "") -> Iterator[None]:
        """A named part of the scenario; what is recorded inside belongs to it."""
        name = f"s{next(self._numbers)}"
        began = time.monotonic()
        self.emit("step", phase="begin", step=name, parent=self.here(), title=title, kind=kind)
        with self._lock:
            self._open.append(name)
        token = _step.set(name)
        outcome, reason = "passed", ""
        try:
            yield
        except BaseException as error:
            outcome, reason = "failed", first_line(error)
            if self.step_of(error) is None:
                self._left = error, title
            raise
        finally:
            _step.reset(token)
            with self._lock:
                self._open.remove(name)
            self._end_step(name, title, outcome, reason, time.monotonic() - began)

    def step_of(self, error: BaseException) -> str | None:
        """Title of the innermost step that this error left; None if it left none."""
        return self._left[1] if self._left is not None and self._left[0] is error else None

    def _end_step(self, name: str, title: str, outcome: str, reason: str, seconds: float) -> None:
        exchanges = self._flush(name)
        self.emit(
            "step",
            phase="end",
            step=name,
            title=title,
            outcome=outcome,
            reason=reason,
            seconds=round(seconds, 3),
            exchanges=exchanges,
        )

    def exchange(self, request: Mapping[str, object], response: Mapping[str, object], command: str) -> None:
        """One request and its reply. Long streams are thinned: the first ones, the last one, and the count are kept."""
        step_name = self.here()
        fields: Event = {
            "step": step_name,
            "request": _short(request),
            "response": _short(response),
            "command": command,
        }
        with self._lock:
            seen = self._seen.setdefault(step_name, _Seen())
            seen.count += 1
            seen.last = fields if seen.count > EXCHANGES_PER_STEP else None
        if seen.last is None:
            self.emit("exchange", **fields)

    def _flush(self, step_name: str) -> int:
        with self._lock:
            seen = self._seen.pop(step_name, _Seen())
        if seen.last is not None:
            self.emit("exchange", **seen.last, omitted=seen.count - EXCHANGES_PER_STEP - 1)
        return seen.count

    def close(self) -> None:
        """Writes what was held back outside of all steps."""
        self._flush("")

    def attach(self, title: str, body: object, mime: str, kind: str) -> None:
        """A note, plot or diagnosis at the current step."""
        self.emit("attachment", step=self.here(), title=title, mime=mime, kind=kind, body=body)


def first_line(error: BaseException) -> str:
    """The cause, as one line."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__).strip()


def _short(part: Mapping[str, object]) -> dict[str, object]:
    """The same request or response with an over-long body cut, and saying so."""
    short = dict(part)
    body = short.get("body")
    if isinstance(body, bytes | bytearray):
        body = bytes(body).decode(errors="replace")
    if isinstance(body, str) and len(body) > BODY_LIMIT:
        body = redact_text(body)[:BODY_LIMIT] + f"\n... {len(body) - BODY_LIMIT} more characters"
    if "body" in short:
        short["body"] = body
    return short


def current() -> Recorder | None:
    """The recorder of the scenario that is running in this process."""
    return _active


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Makes a recorder the current one, for this process and all its threads."""
    global _active
    with _active_lock:
        before, _active = _active, recorder
    try:
        yield recorder
    finally:
        recorder.close()
        with _active_lock:
            _active = before


def exchange(request: Mapping[str, object], response: Mapping[str, object], command: str) -> None:
    """Records one request and its reply, and the command a person could type to repeat it."""
    if (recorder := _active) is not None:
        recorder.exchange(request, response, command)


def note(title: str, body: str, mime: str = "text/plain") -> None:
    """Attaches a text (a log, a manifest, a reply of kubectl) to the current step."""
    if (recorder := _active) is not None:
        recorder.attach(title, body, mime, "note")


def plot(title: str, svg_or_data: str | Mapping[str, object]) -> None:
    """Attaches a picture: SVG text, or the data of one that the report draws (see `inferencebox.report.plots`)."""
    if (recorder := _active) is not None:
        mime = "image/svg+xml" if isinstance(svg_or_data, str) else "application/json"
        recorder.attach(title, svg_or_data, mime, "plot")


@contextlib.contextmanager
def step(title: str, kind: str = "") -> Iterator[None]:
    """A named step; steps nest. What runs inside is attached to it."""
    if (recorder := _active) is None:
        yield
    else:
        with recorder.step(title, kind):
            yield
