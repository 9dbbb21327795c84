"""Streams are steady, bounded, always stopped, and answer questions about what happened between two marks."""

import threading
import time

import httpx
import pytest
from loopback import reply, serving

from inferencebox.checks import at_most, attribute, equals, one_of
from inferencebox.probes.http import Call, Observation, Transport
from inferencebox.traffic import Sample, Stream, Window, burst, stream


def sample(start: float, end: float, status: int | None = 200, error: str | None = None) -> Sample:
    bad = "bad" if error or status != 200 else None
    return Sample(start, start, end, status, error, "p1", "v1", bad)


def test_a_window_counts_what_was_sent_between_its_marks() -> None:
    broken = threading.Event()

    def probe() -> Observation:
        return Observation(503) if broken.is_set() else Observation(200, httpx.Headers({"x-pod": "p"}))

    with stream(probe, rate=200) as s:
        s.mark("before")
        s.collect(20)
        s.mark("broken")
        broken.set()
        s.collect(20)
        broken.clear()
        s.mark("healed")
        s.collect(20)
        s.mark("after")
        window = s.window("before", "after")
        assert s.window("healed", "after").errors == 0
    assert window.requests >= 60
    assert 15 <= window.errors <= 30
    assert 50 <= window.error_window_ms <= 1000 * (s.marks["healed"] - s.marks["broken"]) + 50
    assert set(window.by_status) == {"200", "503"}
    assert window.server_errors == window.errors
    assert window.by_pod["p"] == window.requests - window.errors


def test_the_rate_is_kept() -> None:
    with stream(lambda: Observation(200), rate=100) as s:
        s.collect(40)
        ran = s.now
        requests = len(s.samples)
    assert requests == pytest.approx(100 * ran, abs=15)


def test_a_stalled_platform_does_not_slow_its_judge() -> None:
    def slow() -> Observation:
        time.sleep(0.3)
        return Observation(200)

    with stream(slow, rate=50) as s:
        time.sleep(0.5)
    window = s.window()
    assert window.requests >= 20
    assert window.achieved_parallelism >= 10
    assert window.p50 >= 0.3


def test_it_ends_by_itself() -> None:
    with Stream(lambda: Observation(200), rate=1000, requests=30) as s:
        time.sleep(0.2)
        assert len(s.samples) == 30


def test_when_it_ceases_what_is_under_way_goes_on() -> None:
    may_end = threading.Event()

    def held() -> Observation:
        may_end.wait(5)
        return Observation(200)

    with stream(held, rate=100) as s:
        time.sleep(0.2)
        s.cease()
        assert s.samples == ()
        may_end.set()
    assert len(s.samples) >= 10
    assert s.window().errors == 0


def test_it_is_stopped_when_the_test_fails() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), stream(lambda: Observation(200), rate=50):
        raise ZeroDivisionError
    assert threading.active_count() <= before


def test_a_mistake_in_a_probe_reaches_the_test() -> None:
    def broken() -> Observation:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"), stream(broken, rate=50) as s:
        s.collect(5)


def test_too_few_requests_in_time_is_a_failure() -> None:
    with stream(lambda: Observation(200), rate=10) as s, pytest.raises(AssertionError, match="wanted 100 more"):
        s.collect(100, within=0.2)


def test_what_counts_as_an_error_can_be_said() -> None:
    ok = attribute("status", one_of(200, 429))
    with stream(lambda: Observation(429), rate=100, ok=ok) as s:
        s.collect(5)
    assert s.window().errors == 0


def test_figures_of_a_window() -> None:
    window = Window((sample(0, 0.1), sample(1, 1.2, 503), sample(2, 2.5, None, "reset"), sample(2.1, 2.4)))
    assert window.error_window_ms == pytest.approx(1500)
    assert window.error_rate == 0.5
    assert window.by_status == {"200": 2, "503": 1, "reset": 1}
    assert window.p50 == pytest.approx(0.1)
    assert window.p95 == pytest.approx(0.3)
    assert window.achieved_parallelism == 2
    assert attribute("errors", equals(0))(window) == "errors: wanted 0, got 2"
    assert attribute("error_window_ms", at_most(2000))(window) is None
    assert Window(()).error_window_ms == Window(()).requests == 0
    assert "4 requests, 2 errors within 1500 ms, the first: bad" in str(window)


def test_three_hundred_requests_are_truly_parallel() -> None:
    def slow(request: bytes) -> bytes:
        time.sleep(1.0)
        return reply()

    with serving(slow) as server:
        window = burst(Call("GET", server.endpoint, "/", timeout=20), 300)
    assert window.by_status == {"200": 300}
    assert window.achieved_parallelism == 300
    assert server.most_open == 300


def test_a_burst_can_be_narrower_than_long() -> None:
    with serving(reply()) as server:
        window = burst(Call("GET", server.endpoint, "/"), 50, parallel=5)
    assert window.requests == 50
    assert window.achieved_parallelism <= 5


def test_a_burst_reports_transport_failures() -> None:
    window = burst(lambda: Observation(None, error=Transport.REFUSED), 3)
    assert window.by_status == {"refused": 3}
    assert window.errors == 3
