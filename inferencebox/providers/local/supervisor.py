"""Processes of the box, run by supervisord: one launcher script, one log file and one entry per program."""

import http.client
import shlex
import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from inferencebox.errors import SetupProblem
from inferencebox.platform import ComponentStatus

from .box import NETNS_DIR, sockets_dir

CONFIG = """\
[supervisord]
user=root
logfile={logs}/supervisord.log
pidfile={state}/supervisord.pid
minfds=4096

[unix_http_server]
file={sockets}/supervisor.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[include]
files = programs/*.conf
"""
# relative to the file, since names are parted at spaces

PROGRAM = """\
[program:{name}]
command=/bin/sh {script}
autostart=false
autorestart={autorestart}
startsecs=1
startretries=100
stopasgroup=true
killasgroup=true
stopwaitsecs={stop_seconds}
stdout_logfile=NONE
stderr_logfile=NONE
"""

OUT_OF_FILES = "too many open files"
MORE_FILES = "end other platforms (ibox down --all), or let users watch more: sysctl fs.inotify.max_user_instances=512"
"""Agents watch files by inotify, of which a user has 128 instances on most systems; open files themselves are many."""

STATES = {"RUNNING": "running", "STARTING": "running", "STOPPED": "stopped", "STOPPING": "stopped"}


@dataclass(frozen=True)
class Program:
    """One supervised process.

    Args:
        name: unique in the box; its log is ``logs/<name>.log``.
        argv: what to run.
        pod: network namespace to run it in; empty for the box's own.
        env: environment added to the box's.
        cwd: working directory.
        stop_seconds: how long it may take to end before it is killed.
        restart: whether a crash is answered by a restart.
    """

    name: str
    argv: Sequence[str]
    pod: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stop_seconds: int = 5
    restart: bool = True


def write_config(state: Path) -> None:
    for folder in ("logs", "programs", "certs"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(state=_plain(state), logs=_plain(state / "logs"), sockets=sockets_dir(state))
    (state / "supervisord.conf").write_text(text)


class Supervisor:
    """A client of the box's supervisord."""

    def __init__(self, state: Path) -> None:
        self._state = state
        url = f"unix://{sockets_dir(state)}/supervisor.sock"
        transport = SupervisorTransport(None, None, serverurl=url)
        # replies are what supervisord documents; XML-RPC has no types for them
        self._rpc: Any = xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def log(self, name: str) -> Path:
        return self._state / "logs" / f"{name}.log"

    def add(self, programs: Sequence[Program]) -> None:
        """Make programs known; replaces what was known by the same name and is not running."""
        for program in programs:
            script = self._state / "programs" / f"{program.name}.sh"
            script.write_text(self._script(program))
            script.chmod(0o700)
            config = PROGRAM.format(
                name=program.name,
                script=_plain(shlex.quote(str(script))),
                autorestart="true" if program.restart else "false",
                stop_seconds=program.stop_seconds,
            )
            (self._state / "programs" / f"{program.name}.conf").write_text(config)
        self._rpc.reloadConfig()
        for program in programs:
            self._tolerating((Faults.ALREADY_ADDED,), self._rpc.addProcessGroup, program.name)

    def run(self, programs: Sequence[Program]) -> None:
        """Make programs known and start them."""
        self.add(programs)
        self.start(*(program.name for program in programs))

    def start(self, *names: str) -> None:
        for name in names:
            self._tolerating((Faults.ALREADY_STARTED,), self._rpc.startProcess, name, False)

    def stop(self, *names: str) -> None:
        for name in names:
            self._tolerating((Faults.NOT_RUNNING,), self._rpc.stopProcess, name, False)
        while any(self._rpc.getProcessInfo(name)["statename"] == "STOPPING" for name in names):
            time.sleep(0.05)  # without a limit of ours: supervisord kills after `stop_seconds`

    def signal(self, name: str, signal: str) -> None:
        self._rpc.signalProcess(name, signal)

    def forget(self, *names: str) -> None:
        """Stop programs and remove every trace but their logs."""
        self.stop(*names)
        for name in names:
            self._tolerating((Faults.BAD_NAME,), self._rpc.removeProcessGroup, name)
            for suffix in (".conf", ".sh"):
                (self._state / "programs" / f"{name}{suffix}").unlink(missing_ok=True)

    def status(self) -> list[ComponentStatus]:
        """Every program.

        Raises:
            SetupProblem: supervisord is gone, and with it the box.
        """
        try:
            entries = self._rpc.getAllProcessInfo()
        except (OSError, http.client.HTTPException) as problem:
            raise SetupProblem(f"the local platform is gone ({problem})", "run `ibox up` again") from None
        return [
            ComponentStatus(
                name=entry["name"],
                state=STATES.get(entry["statename"], "failed"),
                pid=entry["pid"] or None,
                log=self.log(entry["name"]),
                detail=entry["spawnerr"] or entry["description"],
            )
            for entry in entries
        ]

    def require_running(self, name: str) -> None:
        """Raise with the last line of its log if this program keeps ending."""
        entry = self._rpc.getProcessInfo(name)
        if entry["statename"] in ("FATAL", "EXITED", "BACKOFF"):
            words = self.last_words(name)
            fix = MORE_FILES if OUT_OF_FILES in words else f"read {self.log(name)}"
            raise SetupProblem(f"{name} does not stay up: {words}", fix)

    def last_words(self, name: str) -> str:
        try:
            lines = self.log(name).read_text(errors="replace").strip().splitlines()
        except OSError:
            return "no output"
        return lines[-1][-300:] if lines else "no output"

    def _script(self, program: Program) -> str:
        exports = [f"export {key}={shlex.quote(value)}" for key, value in program.env.items()]
        enter = ["nsenter", f"--net={NETNS_DIR}/{program.pod}", "--"] if program.pod else []
        command = shlex.join([*enter, *program.argv])
        change = [f"cd {shlex.quote(str(program.cwd))}"] if program.cwd else []
        log = shlex.quote(str(self.log(program.name)))
        return "\n".join(["#!/bin/sh", *exports, *change, f"exec {command} >>{log} 2>&1", ""])

    @staticmethod
    def _tolerating(faults: tuple[int, ...], call: Callable[..., object], *args: object) -> None:
        try:
            call(*args)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in faults:
                raise


def _plain(value: object) -> str:
    """Supervisor expands percent signs in its files."""
    return str(value).replace("%", "%%")
