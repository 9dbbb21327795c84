"""`ibox up`, `ibox status`, `ibox down`: what they say and do, without a platform."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inferencebox import providers
from inferencebox.cli import app
from inferencebox.commands import platform as commands
from inferencebox.doctor import Diagnosis, State
from inferencebox.errors import SetupProblem
from inferencebox.platform import ComponentStatus, Endpoint


@dataclass
class Standing:
    """What looks like a running platform."""

    instance: str
    release: str = "2026.11"
    provider: str = "local"
    parts: list[ComponentStatus] = field(default_factory=lambda: [ComponentStatus("gateway", "running", 7)])
    capabilities: dict[str, str | None] = field(default_factory=lambda: {"gateway": None, "pods": "no kubelet"})
    kubeconfig: Path = Path("/state/kubeconfig")
    logs: Path = Path("/state/logs")
    changed: tuple[str, ...] = ()

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return {"gateway": Endpoint("http", "localhost", 8080), "jwt-server": Endpoint("http", "localhost", 8081)}

    def components(self) -> list[ComponentStatus]:
        return self.parts


@dataclass
class Machine:
    """The platforms there are."""

    up: dict[str, Standing] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)

    def attach(self, instance: str) -> Standing:
        if instance not in self.up:
            raise SetupProblem("not up", "ibox up")
        return self.up[instance]

    def open_platform(
        self, provider: str, instance: str, release: str, options: Any, progress: Any = None, listener: Any = None
    ) -> Standing:
        self.opened.append((provider, instance, release, str(options.models), str(options.limits)))
        if instance not in self.up and listener:
            listener("box", "begins", 0.0)
            listener("kubernetes", "begins", 0.0)
            listener("box", "done", 1.25)
            progress.end("etcd", "in the cache")
            progress.begin("envoy", "v1", "building", 3)
            progress.end("envoy", "built")
        return self.up.setdefault(instance, Standing(instance))

    def close_platform(self, instance: str, *, keep_logs: bool = False, tell: Any = None) -> None:
        self.up.pop(instance, None)
        self.left = [name for name in self.left if name != instance]

    def instances(self) -> list[str]:
        return sorted({*self.up, *self.left})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setenv("IBOX_STATE", str(tmp_path))
    for name in ("attach", "open_platform", "close_platform", "instances"):
        monkeypatch.setattr(providers, name, getattr(made, name))
    monkeypatch.setattr(commands, "examine", list)
    return made


Ibox = Callable[..., Any]


@pytest.fixture
def ibox() -> Ibox:
    return lambda *words: CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_help_has_examples(ibox: Ibox, command: str) -> None:
    done = ibox(command, "--help")
    assert done.exit_code == 0
    assert "Examples" in done.output
    assert f"ibox {command}" in done.output


def test_up_tells_layers_work_and_addresses(ibox: Ibox, machine: Machine) -> None:
    done = ibox("up", "--instance", "mine", "--models", "stub", "--limits", "strict")
    assert done.exit_code == 0, done.output
    assert machine.opened == [("local", "mine", "2026.11", "stub", "strict")]
    assert "✔ box                1.2 s  (under way: kubernetes)" in done.output
    assert "envoy: built" in done.output
    assert "etcd" not in done.output
    assert "http://localhost:8080/v1/models/sklearn-iris:predict" in done.output
    assert "http://localhost:8081/tokens" in done.output
    assert "pytest --reuse --instance mine" in done.output


def test_up_again_changes_nothing(ibox: Ibox, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "examine", lambda: pytest.fail("nothing needs to be examined"))
    machine.up["default"] = Standing("default")
    done = ibox("up")
    assert done.exit_code == 0
    assert "The platform default was up already, nothing changed" in done.output


def test_up_leaves_a_platform_with_the_release_that_it_has(ibox: Ibox, machine: Machine) -> None:
    machine.up["default"] = Standing("default", release="2025.06")
    assert ibox("up").exit_code == 0
    assert machine.opened == [("local", "default", "2025.06", "real", "demo")]


def test_up_brings_another_release_to_a_platform_that_is_up(ibox: Ibox, machine: Machine) -> None:
    machine.up["default"] = Standing("default", release="2025.06", changed=("ratelimit",))
    done = ibox("up", "--release", "2026.11")
    assert "was up already, changed now: ratelimit" in done.output
    assert machine.opened == [("local", "default", "2026.11", "real", "demo")]


def test_up_does_not_take_another_provider_for_the_one_wanted(ibox: Ibox, machine: Machine) -> None:
    machine.up["default"] = Standing("default")
    done = ibox("up", "--provider", "kind")
    assert "is up with provider local, not kind" in str(done.exception)


def test_up_looks_at_the_machine_first(ibox: Ibox, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = [Diagnosis("curl", State.MISSING, "not here", "install curl"), Diagnosis("go", State.OK, "1.26")]
    monkeypatch.setattr(commands, "examine", lambda: lacking)
    done = ibox("up")
    assert str(done.exception).endswith("lacks what the platform needs: curl (not here). Fix: install curl")
    assert machine.opened == []


def test_status_for_people_and_for_programs(ibox: Ibox, machine: Machine) -> None:
    machine.up["default"] = Standing("default")
    told = ibox("status")
    assert told.exit_code == 0
    for part in ("gateway", "running", "http://localhost:8080", "pods: no kubelet", "/state/logs"):
        assert part in told.output
    facts = json.loads(ibox("status", "--json").output)
    assert facts["endpoints"]["gateway"] == "http://localhost:8080"
    assert facts["missing"] == {"pods": "no kubelet"}
    assert facts["components"] == [{"name": "gateway", "state": "running", "pid": 7, "detail": "", "log": None}]


def test_status_of_what_is_broken_or_absent_is_a_problem(ibox: Ibox, machine: Machine) -> None:
    machine.up["mine"] = Standing("mine", parts=[ComponentStatus("redis", "failed", log=Path("/l/redis.log"))])
    broken, absent = ibox("status", "--instance", "mine"), ibox("status")
    assert "failed" in broken.output
    assert str(broken.exception) == "not running: redis. Fix: read /l/redis.log"
    assert str(absent.exception) == "the platform default is not up. Fix: ibox up --instance default; up now: mine"


def test_down_takes_one_and_what_killed_runs_left(ibox: Ibox, machine: Machine) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    alive, dead = f"run-{os.getpid()}", f"run-{ended.pid}"
    machine.up = {name: Standing(name) for name in ("default", "mine", alive)}
    machine.left = [dead, "run-by-hand"]
    done = ibox("down")
    assert done.exit_code == 0
    assert machine.instances() == sorted(["mine", alive, "run-by-hand"])
    assert f"{dead} (left by a test run that was killed): down" in done.output


def test_down_with_nothing_there_is_no_error(ibox: Ibox, machine: Machine) -> None:
    machine.up["mine"] = Standing("mine")
    done = ibox("down")
    assert done.exit_code == 0
    assert "There is no platform default (there is mine: --instance NAME, or --all)." in done.output
    assert list(machine.up) == ["mine"]


def test_down_all_takes_every_one(ibox: Ibox, machine: Machine) -> None:
    machine.up = {name: Standing(name) for name in ("default", "mine")}
    machine.left = ["half"]
    assert ibox("down", "--all").exit_code == 0
    assert machine.instances() == []
