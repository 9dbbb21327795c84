"""The record of a run: complete with several writers, honest about disks, readable after a crash."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.journal import INLINE_LIMIT, Journal, attachment_text, read


def write_many(folder: Path, worker: int) -> None:
    journal = Journal.attach(folder)
    for number in range(100):
        journal.write({"event": "step", "worker": worker, "number": number, "text": "x" * 9000})


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    Journal.create(tmp_path)
    workers = [multiprocessing.Process(target=write_many, args=(tmp_path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    events = read(tmp_path)
    assert len(events) == 400
    for worker_number in range(4):
        assert [e["number"] for e in events if e["worker"] == worker_number] == list(range(100))


def test_long_attachments_lie_beside_the_run_once(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path)
    body = "line\n" * INLINE_LIMIT
    for _ in range(2):
        journal.write({"event": "attachment", "title": "log", "mime": "text/plain", "body": body})
    journal.write({"event": "attachment", "title": "plot", "mime": "application/json", "body": {"n": 1}})
    events = read(tmp_path)
    assert len(list((tmp_path / "attachments").iterdir())) == 1
    assert attachment_text(tmp_path, events[0]) == body
    assert attachment_text(tmp_path, events[2]) == {"n": 1}


def test_a_new_run_replaces_the_old_one(tmp_path: Path) -> None:
    Journal.create(tmp_path).write({"event": "attachment", "mime": "", "body": "x" * INLINE_LIMIT * 2})
    Journal.create(tmp_path)
    assert read(tmp_path) == []
    assert not (tmp_path / "attachments").exists()


def test_secrets_do_not_reach_the_file(tmp_path: Path) -> None:
    Journal.create(tmp_path).write({"event": "verdict", "reason": "Authorization: Bearer abcdefgh12345678"})
    assert "abcdefgh" not in (tmp_path / "run.jsonl").read_text()


def test_a_torn_last_line_is_left_out_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text('{"event":"run-started"}\n{"event":"verd')
    assert read(tmp_path) == [{"event": "run-started"}]
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    with pytest.raises(SetupProblem, match="is not a recorded run"):
        read(tmp_path / "notes.txt")
    with pytest.raises(SetupProblem, match="There is no recorded run"):
        read(tmp_path / "missing")


def test_a_folder_that_cannot_be_written_to_is_a_setup_problem(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(SetupProblem, match="--reports=DIR"):
        Journal.create(blocked / "reports")


def test_a_full_disk_is_a_setup_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(tmp_path)
    journal.write({"event": "run-started"})

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SetupProblem, match="no space left"):
        journal.write({"event": "verdict"})
    monkeypatch.undo()
    journal.write({"event": "run-finished"})
    assert [json.loads(line)["event"] for line in journal.path.read_text().splitlines()] == [
        "run-started",
        "run-finished",
    ]
