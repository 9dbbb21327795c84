"""What is to be counted within one minute of the clock."""

import pytest

from fixtures import limits
from fixtures.limits import in_one_minute
from inferencebox.errors import SetupProblem


class Clock:
    """Stands still until somebody sleeps, or until what is done takes its time."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.began: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def act(self, *takes: float) -> int:
        self.began.append(self.now)
        self.now += takes[len(self.began) - 1]
        return len(self.began)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(600)
    monkeypatch.setattr(limits, "time", clock)
    return clock


def test_what_fits_is_done_at_once(clock):
    assert in_one_minute(lambda: clock.act(20), seconds=10) == 1
    assert clock.began == [600]


def test_it_waits_for_the_next_minute_where_too_little_is_left(clock):
    clock.now = 655
    assert in_one_minute(lambda: clock.act(9), seconds=10) == 1
    assert clock.began == pytest.approx([660.2])


def test_what_ran_into_the_next_minute_is_done_again_at_the_beginning_of_one(clock):
    clock.now = 645
    assert in_one_minute(lambda: clock.act(20, 40), seconds=10) == 2
    assert clock.began == pytest.approx([645, 720.2])


def test_what_takes_longer_than_a_minute_is_the_environments_fault(clock):
    with pytest.raises(SetupProblem, match="longer than a minute"):
        in_one_minute(lambda: clock.act(70, 70), seconds=10)
    assert clock.began == pytest.approx([600, 720.2])
