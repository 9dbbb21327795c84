"""The graph of steps: order, parallelism, failure, and what it tells of itself."""

import threading

import pytest

from inferencebox.layers.dag import Step, StepsFailed, run


def test_a_step_begins_after_those_it_depends_on() -> None:
    order: list[str] = []
    steps = {
        "roof": Step(lambda: order.append("roof"), ["walls"]),
        "walls": Step(lambda: order.append("walls"), ["ground"]),
        "ground": Step(lambda: order.append("ground")),
    }
    run(steps)
    assert order == ["ground", "walls", "roof"]


def test_steps_that_do_not_depend_on_each_other_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=5)
    run({"one": Step(both.wait), "other": Step(both.wait)})


def test_a_failure_keeps_dependants_from_beginning_and_is_raised() -> None:
    begun: list[str] = []

    def fail() -> None:
        raise ValueError("no ground")

    steps = {"ground": Step(fail), "walls": Step(lambda: begun.append("walls"), ["ground"])}
    with pytest.raises(ValueError, match="no ground"):
        run(steps)
    assert not begun


def test_a_failure_waits_for_the_steps_under_way() -> None:
    started, finished = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        threading.Event().wait(0.1)
        finished.set()

    def fail() -> None:
        started.wait(5)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run({"slow": Step(slow), "fails": Step(fail)})
    assert finished.is_set()


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        run({"hen": Step(lambda: None, ["egg"]), "egg": Step(lambda: None, ["hen"])})


def test_the_listener_hears_of_each_step() -> None:
    heard: list[tuple[str, str]] = []
    run({"only": Step(lambda: None)}, lambda step, what, _seconds: heard.append((step, what)))
    assert heard == [("only", "begins"), ("only", "done")]


def test_the_critical_path_is_the_chain_that_ended_last() -> None:
    steps = {
        "short": Step(lambda: None),
        "long": Step(lambda: threading.Event().wait(0.05)),
        "last": Step(lambda: None, ["short", "long"]),
    }
    assert run(steps).critical_path(steps) == ["long", "last"]


def test_going_on_a_step_that_fails_leaves_the_others_unharmed_and_stops_those_that_need_it() -> None:
    done: list[str] = []
    heard: list[tuple[str, str]] = []

    def fail() -> None:
        raise ValueError("broken")

    steps = {
        "mesh": Step(fail),
        "gateway": Step(lambda: done.append("gateway"), ["mesh"]),
        "models": Step(lambda: done.append("models"), ["gateway"]),
        "redis": Step(lambda: done.append("redis")),
        "limits": Step(lambda: done.append("limits"), ["redis"]),
    }
    with pytest.raises(StepsFailed, match="mesh: broken; gateway was not begun for want of mesh") as failed:
        run(steps, lambda step, what, _seconds: heard.append((step, what)), keep_going=True)
    assert done == ["redis", "limits"]
    assert failed.value.skipped == {"gateway": "mesh", "models": "mesh"}
    assert [step for step, what in heard if what == "skipped"] == ["gateway", "models"]
