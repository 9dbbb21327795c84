"""Runs are compared test by test."""

from pathlib import Path

import pytest
from synthetic_run import write_run
from typer.testing import CliRunner

from inferencebox.cli import app


def compare(*runs: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, runs)])
    return done.exit_code, done.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "first")
    return tmp_path / "first"


def changed(run: Path, folder: Path, old: str, new: str) -> Path:
    """The run again, with one thing else in it."""
    folder.mkdir()
    text = (run / "run.jsonl").read_text()
    assert old in text
    (folder / "run.jsonl").write_text(text.replace(old, new))
    return folder


def test_the_same_verdicts_agree(run: Path) -> None:
    assert compare(run, run, run / "run.jsonl") == (0, "3 runs agree\n")


def test_another_verdict_is_told_with_its_reason(run: Path, tmp_path: Path) -> None:
    why = "no header strict-transport-security on 429"
    verdict = f'"verdict":"failed","reason":"{why}"'
    other = changed(run, tmp_path / "other", verdict, '"verdict":"passed","reason":""')
    code, said = compare(run, other, run)
    assert code == 1
    assert said.splitlines()[0].startswith("SEC-30 ")
    assert said.splitlines()[0].endswith(": failed, passed, failed")
    assert said.splitlines()[1:] == [f"    {why}", "3 runs, 1 tests judged differently"]


def test_a_test_that_only_one_run_had_is_told(run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "shorter", promises=89)
    code, said = compare(run, tmp_path / "shorter")
    assert code == 1
    assert ": passed, not selected" in said or ", not selected" in said


def test_no_run_is_a_problem_of_the_environment(tmp_path: Path) -> None:
    assert compare(tmp_path)[0] != 0
