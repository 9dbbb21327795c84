"""Who may run now, and who runs inside somebody's turn."""

import fcntl
import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferencebox.turns import slot, turn, within

HOLDER = """
import pathlib, sys, time
from inferencebox.turns import slot
with slot(pathlib.Path(sys.argv[1]), "starting", 1):
    print("held", flush=True)
    time.sleep(60)
"""


def taken(folder):
    """Whether somebody is in the room alone."""
    handle = os.open(folder / "room.lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_turn_is_taken_and_given_back(tmp_path, exclusive):
    with turn(tmp_path, exclusive):
        assert taken(tmp_path) == exclusive
    assert not taken(tmp_path)


def test_who_has_a_turn_with_others_can_be_alone_from_then_on(tmp_path):
    with turn(tmp_path, exclusive=False) as mine:
        assert not taken(tmp_path)
        mine.alone()
        assert taken(tmp_path)
    assert not taken(tmp_path)


def test_two_that_want_to_be_alone_do_not_wait_for_each_other(tmp_path):
    def alone_at_last():
        with turn(tmp_path, exclusive=False) as mine:
            both_in.wait(5)
            mine.alone()
            assert taken(tmp_path)

    both_in = threading.Barrier(2)
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(alone_at_last) for _ in range(2)]:
            each.result(10)


def test_runs_inside_a_turn_take_turns_among_themselves(tmp_path, monkeypatch):
    with turn(tmp_path, exclusive=True):
        for name, value in within(tmp_path).items():
            monkeypatch.setenv(name, value)
        with turn(tmp_path, exclusive=True):  # does not wait for the outer one
            inner = tmp_path / "held"
            assert taken(inner)
            for name, value in within(tmp_path).items():
                monkeypatch.setenv(name, value)
            with turn(tmp_path, exclusive=True):  # nor does one inside that
                assert taken(inner / "held")


def test_no_more_hold_a_slot_than_there_are_and_who_waits_gets_the_next(tmp_path):
    def hold(_):
        with slot(tmp_path, "starting", slots=2):
            holders.append(1)
            seen.append(len(holders))
            a_while.wait(0.3)
            holders.pop()

    holders, seen, a_while = [], [], threading.Event()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(hold, range(5)))
    assert len(seen) == 5
    assert max(seen) == 2
    with slot(tmp_path, "starting", slots=1), slot(tmp_path, "another kind", slots=1):
        pass


def test_who_finds_no_slot_goes_without_one_as_soon_as_there_is_something_else(tmp_path):
    room = iter([False, False, True])
    with slot(tmp_path, "running", slots=1), slot(tmp_path, "running", slots=1, or_else=lambda: next(room)):
        assert next(room, "asked three times") == "asked three times"


def test_on_full_cores_one_runs_for_each_core_and_who_is_to_be_alone_needs_no_core(tmp_path, monkeypatch):
    def begun(exclusive):
        with turn(tmp_path, exclusive):
            began.set()

    monkeypatch.setattr("inferencebox.turns.cores", lambda: 1)
    monkeypatch.setattr("inferencebox.turns.has_room", lambda: False)
    began = threading.Event()
    with ThreadPoolExecutor() as pool:
        with turn(tmp_path, exclusive=False):
            waiting = pool.submit(begun, False)
            assert not began.wait(0.5)
        waiting.result(5)
        with slot(tmp_path, "running", slots=1):
            pool.submit(begun, True).result(5)


def test_beyond_the_cores_one_begins_at_a_time_and_the_next_when_the_machine_tells_of_it(tmp_path, monkeypatch):
    def begin(_):
        with turn(tmp_path, exclusive=False):
            began.append(time.monotonic())

    for name, value in (("cores", lambda: 0), ("has_room", lambda: True), ("SECONDS", 0.4)):
        monkeypatch.setattr(f"inferencebox.turns.{name}", value)
    began = [time.monotonic()]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(begin, range(3)))
    assert min(after - before for before, after in itertools.pairwise(began)) > 0.35


def test_a_slot_is_free_again_when_its_holder_was_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with slot(tmp_path, "starting", slots=1):
        pass
