"""Waiting, the only place that polls. Positives converge (a streak), negatives hold (`consistently`).

A transport failure while waiting is an observation like any other; an exception is a mistake and goes through.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from inferencebox import evidence
from inferencebox.checks import Check, shown

T = TypeVar("T")

SCALE_VARIABLE = "IBOX_TIMEOUT_SCALE"


def timeout_scale() -> float:
    """How many times the usual time scenarios are given now."""
    return float(os.environ.get(SCALE_VARIABLE) or 1.0)


@dataclass(frozen=True)
class Timeouts:
    """Every limit in seconds, each with the promise it comes from (IDs of SPEC section 3).

    `Timeouts.current()` gives them scaled by `$IBOX_TIMEOUT_SCALE`, for slow machines.
    """

    converge: float = 30.0
    """A configuration change is seen by every proxy: the shortest promise on it is 30 s (TRF-07)."""
    route: float = 30.0
    """TRF-07: a new model is routable within 30 s; MGT-16, MGT-20: an update or unpublish is live within 30 s."""
    rollback: float = 30.0
    """TRF-32: 100 % old within 30 s."""
    switch: float = 10.0
    """TRF-35: no old reply 10 s after a blue/green switch."""
    overload_recovery: float = 10.0
    """TRF-20: recovers within 10 s after an overload."""
    crash_recovery: float = 120.0
    """TRF-25: recovered within 120 s after model pods were killed."""
    limiter_return: float = 60.0
    """TRF-16: limits are enforced again within 60 s after the limiter's return."""
    limit_window: float = 65.0
    """TRF-10: the next one-minute window admits again; 5 s for the limiter's clock."""
    blocked: float = 5.0
    """TEN-03: a forbidden connection fails within 5 s."""
    key_dropped: float = 300.0
    """SEC-17: a dropped key is refused within 5 min (the proxy's JWKS cache)."""
    key_grace: float = 60.0
    """MGT-21: a rotated API key works for 60 s more."""
    audit: float = 30.0
    """SEC-33: an audit entry is there within 30 s."""
    log_line: float = 60.0
    """OBS-13: a log line is in the store within 60 s."""
    metric: float = 45.0
    """OBS-02: a counter shows in Prometheus after at most two scrapes of 15 s and a query."""
    trace: float = 30.0
    """OBS-10: spans are batched and exported within seconds; no promise of its own."""
    scale_to_zero: float = 180.0
    """SCL-01: an idle model has no pods after 180 s."""
    cold_start: float = 60.0
    """SCL-02: the first request from zero is answered within 60 s."""
    scale_down: float = 240.0
    """SCL-05: back to zero within 240 s after load."""
    latency_alert: float = 480.0
    """ALR-02: fires within 8 min."""
    down_alert: float = 120.0
    """ALR-03: fires within 2 min."""
    request: float = 60.0
    """SPEC 1.5: request timeout of the platform."""
    first_ready: float = 120.0
    """A new InferenceService (its revision, its routes, its first pod) is ready; no promise of its own."""
    ready: float = 60.0
    """A replica, a component or a Kubernetes condition becomes ready; no promise of its own."""

    upgraded: float = 240.0
    """OPS-14: a node shows a part its changed configuration within two minutes, then pods take turns; no promise."""

    def scaled(self, factor: float) -> "Timeouts":
        return replace(self, **{f.name: getattr(self, f.name) * factor for f in fields(self)})

    @classmethod
    def current(cls) -> "Timeouts":
        """The limits, scaled by the environment."""
        return cls().scaled(timeout_scale())


class Unmet(AssertionError):
    """What was waited for did not come, or did not hold. The first line is the reason."""

    def __init__(self, reason: str, attempts: int, seconds: float, last: object) -> None:
        super().__init__(f"{reason}\nasked {attempts} times in {seconds:.1f} s; last seen: {shown(last)}")
        self.reason = reason
        self.attempts = attempts
        self.seconds = seconds
        self.last = last

    def __reduce__(self) -> tuple[type["Unmet"], tuple[str, int, float, object]]:
        return type(self), (self.reason, self.attempts, self.seconds, self.last)


class _Progress:
    """Asks once per call and keeps count of attempts and successes in a row."""

    def __init__(self, probe: Callable[[], Any], check: Check) -> None:
        self.probe = probe
        self.check = check
        self.started = time.monotonic()
        self.attempts = 0
        self.streak = 0
        self.last: Any = None
        self.reason: str | None = None

    def ask(self) -> int:
        self.last = self.probe()
        self.attempts += 1
        why = self.check(self.last)
        self.streak = 0 if why else self.streak + 1
        self.reason = why or self.reason
        return self.streak

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def unmet(self, reason: str) -> Unmet:
        return Unmet(reason, self.attempts, self.seconds, self.last)


def eventually(
    probe: Callable[[], T],
    check: Check,
    streak: int = 1,
    within: float | None = None,
    every: float = 0.1,
) -> T:
    """Ask until the check holds `streak` times in a row; give the last observation.

    Args:
        within: seconds; default `Timeouts.converge`. The probe is always asked at least once.
        every: seconds between first attempts; pauses grow to ten times that, at most 2 s, while the check fails.

    Raises:
        Unmet: it did not come in time.
    """
    limit = Timeouts.current().converge if within is None else within
    progress = _Progress(probe, check)
    pauses = wait_exponential(multiplier=every, min=every, max=max(every, min(2.0, every * 10)))
    retrying = Retrying(
        retry=retry_if_result(lambda held: held < streak),
        stop=stop_after_delay(limit),
        wait=lambda state: every if progress.streak else pauses(state),
    )
    try:
        retrying(progress.ask)
    except RetryError:
        held = f" (then only {progress.streak} of {streak} times in a row)" if progress.streak else ""
        raise progress.unmet((progress.reason or str(check)) + held) from None
    if progress.attempts > streak:
        evidence.note("waited", f"{check}: after {progress.seconds:.1f} s and {progress.attempts} attempts")
    last: T = progress.last
    return last


def confirm(seen: T, check: Check) -> T:
    """What has been seen must be as wanted; give it back. For what is so at once or never: `confirm(call(), check)`.

    Raises:
        Unmet: it is not.
    """
    if why := check(seen):
        raise Unmet(why, 1, 0.0, seen)
    return seen


def consistently(probe: Callable[[], T], check: Check, seconds: float, every: float = 0.2) -> T:
    """Ask for so many seconds; the check must hold each time. Give the last observation.

    Raises:
        Unmet: at the first observation that is not as wanted.
    """
    progress = _Progress(probe, check)
    while True:
        if not progress.ask():
            raise progress.unmet(progress.reason or str(check))
        if progress.seconds >= seconds:
            break
        time.sleep(min(every, max(0.0, seconds - progress.seconds)))
    evidence.note("held", f"{check}: for {progress.seconds:.1f} s, {progress.attempts} times")
    last: T = progress.last
    return last
