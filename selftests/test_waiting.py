"""Waiting converges, holds, gives up in time and says what it saw last."""

import pickle
import time
from collections.abc import Iterator

import pytest

from inferencebox.checks import answered, equals
from inferencebox.probes.http import Observation, Transport
from inferencebox.waiting import SCALE_VARIABLE, Timeouts, Unmet, consistently, eventually


def asking(*values: object) -> Iterator[object]:
    yield from values
    while True:
        yield values[-1]


def test_it_waits_until_the_check_holds() -> None:
    values = asking(0, 0, 1)
    assert eventually(lambda: next(values), equals(1), within=2, every=0.01) == 1


def test_a_streak_starts_over_after_a_failure() -> None:
    asked: list[object] = []
    values = asking(1, 1, 0, 1, 1, 1)
    eventually(lambda: asked.append(next(values)) or asked[-1], equals(1), streak=3, within=2, every=0.01)
    assert asked == [1, 1, 0, 1, 1, 1]


def test_what_did_not_come_is_told_with_reason_attempts_time_and_last_observation() -> None:
    with pytest.raises(Unmet) as caught:
        eventually(lambda: Observation(503), answered(200), within=0.2, every=0.01)
    first, second = str(caught.value).splitlines()
    assert first == "wanted 200, got 503 at tier-1"
    assert "last seen: 503 at tier-1" in second
    assert caught.value.attempts > 2
    assert 0.15 < caught.value.seconds < 1
    assert isinstance(caught.value, AssertionError)


def test_a_broken_streak_is_told() -> None:
    values = asking(0, *[1] * 10000)
    with pytest.raises(Unmet, match=r"^wanted 1, got 0 \(then only \d+ of 1000 times in a row\)"):
        eventually(lambda: next(values), equals(1), streak=1000, within=0.2, every=0.01)


def test_it_asks_at_least_once() -> None:
    assert eventually(lambda: 1, equals(1), within=0) == 1


def test_transport_failures_are_observations() -> None:
    values = asking(Observation(None, error=Transport.REFUSED), Observation(200))
    assert eventually(lambda: next(values), answered(200), within=1, every=0.01).status == 200  # type: ignore[attr-defined]


def test_exceptions_are_mistakes_and_go_through() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0, equals(1), within=1)


def test_what_must_hold_fails_at_the_first_exception_from_it() -> None:
    values = asking(0, 0, 7)
    with pytest.raises(Unmet, match=r"^wanted 0, got 7\nasked 3 times"):
        consistently(lambda: next(values), equals(0), seconds=5, every=0.01)


def test_what_holds_is_asked_for_the_whole_time() -> None:
    asked: list[int] = []
    started = time.monotonic()
    consistently(lambda: asked.append(0) or 0, equals(0), seconds=0.2, every=0.02)
    assert 0.2 <= time.monotonic() - started < 1
    assert len(asked) >= 5


def test_limits_scale_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCALE_VARIABLE, "2.5")
    assert Timeouts.current().route == 75
    monkeypatch.setenv(SCALE_VARIABLE, "")
    assert Timeouts.current() == Timeouts()


def test_unmet_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Unmet("why", 3, 1.5, "x")))
    assert (str(again), again.attempts) == (str(Unmet("why", 3, 1.5, "x")), 3)
