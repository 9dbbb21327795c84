"""Containers' logs out of a node's own files."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inferencebox.providers.kubernetes import node_logs
from inferencebox.providers.kubernetes.door import node_logs_of, tell_node_logs
from inferencebox.providers.kubernetes.node_logs import NodeLogs

POD = {"metadata": {"namespace": "tenant-a", "name": "iris", "uid": "1"}}
CONTAINER = {"name": "model", "restartCount": 2}
TIME = "2026-11-30T04:46:18.257Z"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_logs, "PAUSE", 0.01)
    monkeypatch.setattr(node_logs, "APPEARS_SECONDS", 0.05)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "pods/tenant-a_iris_1/model/2.log"
    file.parent.mkdir(parents=True)
    return file


def copied(tmp_path: Path, source: Path, *changes: Callable[[], object]) -> str:
    """What is copied while the node's files change, until the pod is gone."""
    target = tmp_path / "target.log"

    async def run() -> None:
        copying = asyncio.create_task(NodeLogs([tmp_path / "other", tmp_path / "pods"]).copy(POD, CONTAINER, target))
        for change in changes:
            await asyncio.sleep(0.1)
            change()
        await asyncio.sleep(0.1)
        shutil.rmtree(source.parent.parent)
        assert await copying

    asyncio.run(run())
    return target.read_text()


def append(source: Path, text: str) -> None:
    with source.open("a") as file:
        file.write(text)


def test_what_was_written_is_copied_as_it_comes(tmp_path: Path, source: Path) -> None:
    append(source, f"{TIME} stdout F first line\n{TIME} stderr F \n")
    more = copied(tmp_path, source, lambda: append(source, f"{TIME} stdout F se"), lambda: append(source, "cond\n"))
    assert more == "first line\n\nsecond\n"


def test_a_long_line_that_the_runtime_cut_is_one_again(tmp_path: Path, source: Path) -> None:
    append(source, f"{TIME} stdout P one \n{TIME} stdout F line\n")
    assert copied(tmp_path, source) == "one line\n"


def test_a_file_that_is_put_aside_is_read_to_its_end_and_then_the_next(tmp_path: Path, source: Path) -> None:
    append(source, f"{TIME} stdout F one\n")

    def put_aside() -> None:
        append(source, f"{TIME} stdout F two\n")
        source.rename(source.with_name("2.log.20261130"))

    found = copied(tmp_path, source, put_aside, lambda: append(source, f"{TIME} stdout F three\n"))
    assert found == "one\ntwo\nthree\n"


def test_a_log_that_is_on_no_node_of_ours_is_not_found(tmp_path: Path, source: Path) -> None:
    assert not asyncio.run(NodeLogs([tmp_path / "pods"]).copy(POD, CONTAINER, tmp_path / "target.log"))


def test_only_files_that_we_may_read_are_read(tmp_path: Path) -> None:
    assert node_logs_of(tmp_path) is None
    tell_node_logs(tmp_path, [])
    assert node_logs_of(tmp_path) is None
    tell_node_logs(tmp_path, [tmp_path, tmp_path / "not-there"])
    assert node_logs_of(tmp_path) is None
    tell_node_logs(tmp_path, [tmp_path])
    assert node_logs_of(tmp_path) is not None
