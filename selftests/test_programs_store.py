"""The cache: whole or not at all, verified, shared by runs."""

import os
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.programs.store import Entry, Facts, Store, key_of

Usage = namedtuple("Usage", "total used free")


def put(store: Store, key: str = "k", text: str = "hello", seconds: float = 3) -> Entry:
    with store.lock("tool", on_wait=lambda: None), store.workspace("tool", 0) as work:
        out = work / "out"
        out.mkdir()
        (out / "tool").write_text(text)
        (out / "link").symlink_to("tool")
        return store.publish(key, out, Facts("tool", "v1", "go", "tool", seconds, {}))


@pytest.fixture(params=["cache", "a cache with spaces"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    return Store(tmp_path / request.param)


def test_what_was_published_is_found(store: Store) -> None:
    put(store)
    entry = store.find("tool", "k")
    assert entry
    assert entry.path.read_text() == "hello"
    assert store.last_seconds("tool") == 3


def test_another_key_finds_nothing(store: Store) -> None:
    put(store)
    assert store.find("tool", "other") is None


def test_a_changed_file_is_not_used(store: Store) -> None:
    put(store).path.write_text("hullo")
    with pytest.raises(SetupProblem, match=r"tool of .* has another checksum.*Fix: ibox build --again tool"):
        store.find("tool", "k")


def test_a_missing_file_is_not_used(store: Store) -> None:
    put(store).path.unlink()
    with pytest.raises(SetupProblem, match="ibox build --again tool"):
        store.find("tool", "k")


def test_a_redirected_link_is_not_used(store: Store) -> None:
    link = put(store).folder / "link"
    link.unlink()
    link.symlink_to("/bin/true")
    with pytest.raises(SetupProblem, match="ibox build --again tool"):
        store.find("tool", "k")


def test_publishing_again_replaces(store: Store) -> None:
    put(store)
    put(store, text="new", seconds=5)
    entry = store.find("tool", "k")
    assert entry
    assert entry.path.read_text() == "new"
    assert store.last_seconds("tool") == 5


def test_an_interrupted_build_leaves_nothing_half_published(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted_build(store)
    assert store.find("tool", "k") is None
    assert list((store.root / "work").iterdir()) == []


def _interrupted_build(store: Store) -> None:
    with store.workspace("tool", 0) as work:
        (work / "tool").write_text("half")
        raise KeyboardInterrupt


def test_what_a_killed_run_left_is_cleared_by_the_next(store: Store) -> None:
    left = store.root / "work" / "tool@1"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    put(store)
    assert not left.exists()


def test_a_nearly_full_disk_is_said_before_it_is_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1_000_000_000))
    with (
        pytest.raises(SetupProblem, match=r"1\.0 GB free .* 3\.2 GB are needed.*IBOX_CACHE"),
        store.workspace("t", 3 << 30),
    ):
        pass


def test_a_disk_that_fills_up_is_said(store: Store) -> None:
    with pytest.raises(SetupProblem, match=r"No space left.*Fix: make room"), store.workspace("tool", 0):
        raise OSError(28, "No space left on device")


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "cache")
    with pytest.raises(SetupProblem, match="set IBOX_CACHE"), store.lock("tool", on_wait=lambda: None):
        pass


def test_two_runs_take_turns(store: Store) -> None:
    waited: list[str] = []
    order: list[str] = []

    def second() -> None:
        with store.lock("tool", on_wait=lambda: waited.append("second")):
            order.append("second")

    with store.lock("tool", on_wait=lambda: waited.append("first")):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 10
        while not waited and time.monotonic() < deadline:
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert waited == ["second"]
    assert order == ["first", "second"]


def test_a_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1, "b": 2}) != key_of({"a": 1, "b": 3})


def test_what_was_not_used_for_longest_comes_first(store: Store) -> None:
    for key in ("first", "second"):
        put(store, key)
        manifest = store.root / "store" / "tool" / key / "manifest.json"
        os.utime(manifest, (1000, manifest.stat().st_mtime))
    assert store.find("tool", "first")
    assert [(each.key, time.time() - each.used < 60) for each in store.kept()] == [("second", False), ("first", True)]


def test_what_is_forgotten_is_gone_and_nothing_else(store: Store) -> None:
    put(store, "old")
    put(store, "new")
    (old,) = [each for each in store.kept() if each.key == "old"]
    assert store.size_of(old) > len("hello")
    store.forget(old)
    assert store.find("tool", "old") is None
    assert store.find("tool", "new")
    assert not list((store.root / "work").iterdir())
