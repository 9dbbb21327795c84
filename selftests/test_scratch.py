"""What a killed run left in the temporary folder is found and cleared; what a living one uses is not."""

import os
import subprocess
from pathlib import Path

import pytest

from inferencebox import scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_process_that_is_gone_is_removed(temporary: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = temporary / f"{scratch.PREFIX}{gone.pid}-abc"
    left.mkdir()
    assert scratch.sweep() == [left]
    assert not left.exists()


def test_the_folder_of_a_living_process_stays() -> None:
    mine = scratch.make()
    assert str(os.getpid()) in mine.name
    assert scratch.sweep() == []
    assert mine.exists()
