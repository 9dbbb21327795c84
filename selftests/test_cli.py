"""The command line: what it says, and with which exit code."""

import json
import os
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from programs_kit import TOOLCHAIN

from inferencebox import command_line, doctor
from inferencebox.errors import SetupProblem
from inferencebox.programs import pypi

Usage = namedtuple("Usage", "total used free")


def ibox(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    surroundings = {**os.environ, **environment}
    return subprocess.run(command_line.ibox(*arguments), capture_output=True, text=True, env=surroundings)


HELPS = (
    "build|doctor|job|releases|releases check|releases pin|bundle create|bundle verify|bundle load",
    "engine up|engine down|engine status",
)


@pytest.mark.parametrize("command", [words.split() for words in "|".join(HELPS).split("|")])
def test_help_has_examples(command: list[str]) -> None:
    done = ibox(*command, "--help")
    assert done.returncode == 0
    assert "Examples" in done.stdout


def test_a_problem_is_one_line_and_exit_code_2() -> None:
    done = ibox("build", "--release", "1999.01")
    assert done.returncode == 2
    assert done.stderr.startswith("ibox: unknown release 1999.01. Fix: ")
    assert done.stderr.count("\n") == 1


def test_build_says_what_it_did_in_plain_lines(tmp_path: Path) -> None:
    tool = tmp_path / "ibox-test-tool"
    tool.write_text("#!/bin/sh\necho tool 1\n")
    tool.chmod(0o755)
    programs = {"ibox-test-tool": {"purpose": "a", "version_check": {"pattern": "tool 1"}}}
    layers = {"tools": {"version": "v1", "purpose": "a", "programs": programs}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "about": "a", "toolchain": TOOLCHAIN, "layers": layers}))
    search = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = ibox("build", "--release", str(path), PATH=search, IBOX_CACHE=str(tmp_path / "a cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"ibox-test-tool: on PATH: {tool}"
    assert done.stdout.splitlines()[-1].startswith("1 ready after ")


def test_releases_are_listed_and_checked() -> None:
    assert "2026.11" in ibox("releases").stdout
    done = ibox("releases", "check")
    assert done.returncode == 0
    assert "warn: istio 1.26 is documented for kubernetes 1.29 to 1.32" in done.stdout


def test_doctor_gives_json() -> None:
    found = json.loads(ibox("doctor", "--json").stdout)
    assert {"check", "state", "detail", "fix"} == set(found[0])
    assert {"user namespaces", "disk", "memory", "python", "go", "npm"} <= {entry["check"] for entry in found}


def test_doctor_fails_when_the_cache_cannot_be_written() -> None:
    done = ibox("doctor", IBOX_CACHE="/proc/nowhere")
    assert done.returncode == 2
    assert "ibox: missing: " in done.stderr


def test_every_complaint_of_the_doctor_has_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_namespaces() -> None:
        raise SetupProblem("user namespaces are off", "switch them on")

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(doctor, "require_user_namespaces", no_namespaces)
    monkeypatch.setattr(pypi, "installer", list)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    complaints = {entry.check: entry for entry in doctor.examine() if entry.state is not doctor.State.OK}
    assert {"user namespaces", "disk", "go", "curl", "npm"} <= set(complaints)
    assert all(entry.fix for entry in complaints.values())


def test_the_cache_says_what_it_keeps_and_forgets_what_is_not_used(tmp_path: Path) -> None:
    manifest = tmp_path / "store" / "tool" / "k" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert "1 kept" in ibox("cache", "show", IBOX_CACHE=str(tmp_path)).stdout
    assert "0 removed" in ibox("cache", "prune", IBOX_CACHE=str(tmp_path)).stdout
    os.utime(manifest, (0, 0))
    assert "tool/k" in ibox("cache", "prune", IBOX_CACHE=str(tmp_path)).stdout
    assert not manifest.exists()
