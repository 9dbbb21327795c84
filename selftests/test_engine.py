"""The container engine as this machine has it, by docker commands that are scripts: what is wrong, and what to do."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll
from inferencebox.providers.kind import engine
from inferencebox.release import DEFAULT_RELEASE, Release


@pytest.fixture(autouse=True)
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which only our docker can be, and a cache of our own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("IBOX_CACHE", str(tmp_path / "cache"))
    return folder


def docker(folder: Path, body: str) -> None:
    script = folder / "docker"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "28.2.2", "100.0.1"])
def test_a_daemon_that_answers_is_found(bin_folder: Path, version: str) -> None:
    docker(bin_folder, f"echo {version}")
    assert engine.find().version == version


PROBLEMS = {
    "too old": ("echo 19.03.8", r"Docker 19\.03\.8 is too old\. Fix: update Docker to 20\.10 or newer"),
    "no daemon": ("echo Cannot connect to the Docker daemon >&2; exit 1", r"daemon does not answer\. Fix: start it"),
    "says nothing": ("exit 0", "the Docker daemon does not answer"),
    "not permitted": ("echo permission denied while trying >&2; exit 1", r"refuses this user\. Fix: .*usermod"),
    "hangs": ("exec /bin/sleep 30", r"daemon does not answer within 0\.3 s"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_is_wrong_is_said_with_the_fix(bin_folder: Path, monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    body, said = PROBLEMS[problem]
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.3)
    docker(bin_folder, body)
    with pytest.raises(SetupProblem, match=said):
        engine.find()


def test_no_docker_is_said_with_the_fix() -> None:
    with pytest.raises(SetupProblem, match=r"Docker is not installed\. Fix: install Docker .*ibox engine up"):
        engine.find()


def test_a_docker_that_does_not_run_is_said(bin_folder: Path) -> None:
    (bin_folder / "docker").write_text("not a program")
    (bin_folder / "docker").chmod(0o755)
    with pytest.raises(SetupProblem, match="docker does not run"):
        engine.find()


def test_what_a_docker_command_says_is_in_the_problem(bin_folder: Path) -> None:
    docker(
        bin_folder, '[ "$1" = version ] && echo 28.2.2 && exit; echo first; echo no space left on device >&2; exit 1'
    )
    with pytest.raises(SetupProblem, match="docker load failed: no space left on device"):
        engine.find().run("load", "--input", "x")


def test_an_engine_that_answers_is_used_and_none_is_started(bin_folder: Path) -> None:
    docker(bin_folder, "echo 28.2.2")
    assert engine.up(Release.load(DEFAULT_RELEASE)).version == "28.2.2"
    assert engine.own_pid() is None


@pytest.mark.parametrize("problem", ["too old", "not permitted"])
def test_no_engine_of_ours_is_started_beside_one_that_is_there(bin_folder: Path, problem: str) -> None:
    body, said = PROBLEMS[problem]
    docker(bin_folder, body)
    with pytest.raises(SetupProblem, match=said):
        engine.up(Release.load(DEFAULT_RELEASE))


def test_without_root_no_engine_of_ours_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupProblem, match=r"needs root\. Fix: run this as root, or install Docker"):
        engine.up(Release.load(DEFAULT_RELEASE))


@pytest.fixture
def other_process() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_down_leaves_a_process_alone_that_only_has_the_old_pid(other_process: "subprocess.Popen[bytes]") -> None:
    engine.home().mkdir(parents=True)
    (engine.home() / "dockerd.pid").write_text(str(other_process.pid))
    assert engine.down() is False
    assert other_process.poll() is None
    assert not (engine.home() / "dockerd.pid").exists()


def test_down_ends_our_own_daemon() -> None:
    engine.home().mkdir(parents=True)
    program = "import sys, time; time.sleep(60)"
    daemon = subprocess.Popen([sys.executable, "-c", program, f"--data-root={engine.home() / 'data'}"])
    (engine.home() / "dockerd.pid").write_text(str(daemon.pid))
    assert poll(engine.own_pid, 5) == daemon.pid, "a process has its command line a moment after it has begun"
    waiter = threading.Thread(target=daemon.wait)  # we are its parent here, and a zombie would count as running
    waiter.start()
    assert engine.down() is True
    waiter.join(5)
    assert daemon.poll() is not None
