"""A platform for the suite's own tests: lives in a file, so that all processes of a run see the same one."""

import json
import os
from pathlib import Path
from typing import Any

from inferencebox import providers
from inferencebox.errors import SetupProblem
from inferencebox.platform import ComponentStatus, Platform

HOME = Path(os.environ.get("FAKE_PLATFORM", "."))
CAPABILITIES = {"gateway": None, "mesh": None, "autoscaling": "no kubelet: nothing runs in pods"}


def _absent(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("the plugin itself asks for no such thing")


class FakePlatform(Platform):
    """The part of `Platform` that the plugin uses."""

    endpoint = forward = reach = run_in = run_beside = workloads = cpu_seconds = remove_workloads = running = _absent

    def __init__(self, instance: str) -> None:
        self.provider, self.instance, self.release = "local", instance, "2026.11"
        self.capabilities = CAPABILITIES
        self.kubeconfig = HOME / "none-was-written"

    def components(self) -> list[ComponentStatus]:
        stopped = json.loads((HOME / "stopped.json").read_text())
        return [ComponentStatus(n, "stopped" if n in stopped else "running") for n in ("gateway", "default/jwt-server")]

    def _stop(self, component: str) -> None:
        stopped = json.loads((HOME / "stopped.json").read_text())
        (HOME / "stopped.json").write_text(json.dumps([*stopped, component.replace("jwt", "default/jwt")]))

    def start(self, component: str) -> None:
        (HOME / "stopped.json").write_text("[]")

    _kill = _stop

    def _add_workloads(self, specs: list[Any]) -> list[Any]:
        return []

    def diagnose(self) -> dict[str, str]:
        return {"Envoy's log": "upstream connect error"}


def note(word: str) -> None:
    with (HOME / "calls.txt").open("a") as file:
        file.write(word + "\n")


def open_platform(provider: str, instance: str, release: str, options: Any, *told: Any) -> FakePlatform:
    note("open")
    (HOME / "parts.json").write_text(json.dumps([name for name in ("telemetry", "logs") if getattr(options, name)]))
    if (HOME / "broken").exists():
        raise SetupProblem("etcd did not start", "look into etcd.log")
    (HOME / "stopped.json").write_text("[]")
    return attach(instance)


def attach(instance: str) -> FakePlatform:
    if not (HOME / "stopped.json").exists():
        raise SetupProblem("no platform is running", "run ibox up")
    return FakePlatform(instance)


def close_platform(instance: str) -> None:
    note("close")


def install() -> None:
    """Puts the fake in the place of the real providers."""
    for name in ("open_platform", "attach", "close_platform"):
        setattr(providers, name, globals()[name])
