"""The container engine: Docker as this machine has it, or Debian's, started by us where there is none."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferencebox import programs
from inferencebox.errors import SetupProblem
from inferencebox.paths import cache_dir
from inferencebox.polling import poll
from inferencebox.programs import Progress
from inferencebox.release import Release

OLDEST = (20, 10)
ANSWER_SECONDS = 20
START_SECONDS = 60
STOP_SECONDS = 60
POLL_SECONDS = 0.2
PROGRAMS = ("dockerd", "containerd", "iptables")
INSTALL = "install Docker (https://docs.docker.com/engine/install), or on Debian as root: ibox engine up"
UPDATE = f"update Docker to {'.'.join(map(str, OLDEST))} or newer"
START = "start it (systemctl start docker, or Docker Desktop), or on Debian as root: ibox engine up"
PERMIT = "run this as a user who may use Docker (usermod -aG docker $USER, then log in again)"
NEEDS_ROOT = "run this as root, or install Docker (https://docs.docker.com/engine/install)"
CAP_SYS_RESOURCE = 24


@dataclass(frozen=True)
class Engine:
    """A daemon that answers.

    Args:
        docker: the command that reaches it.
        version: the daemon's.
    """

    docker: Path
    version: str

    def run(self, *words: str | Path, text: str | None = None, timeout: float = 600) -> str:
        """What a docker command prints.

        Raises:
            SetupProblem: it failed; with the last line it said.
        """
        done = subprocess.run([self.docker, *words], input=text, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise SetupProblem(f"docker {words[0]} failed: {said[-1]}", "see `docker info`, then run this again")
        return done.stdout.strip()

    def cores(self) -> int:
        """Processors of the machine that it runs containers on."""
        return int(self.run("info", "--format", "{{.NCPU}}"))


def find() -> Engine:
    """The engine of this machine.

    Raises:
        SetupProblem: Docker is not here, too old, not ours to use, or its daemon does not answer.
    """
    docker = shutil.which("docker") or _fetched_command()
    if docker is None:
        raise SetupProblem("Docker is not installed", INSTALL)
    return ask(Path(docker))


def ask(docker: Path) -> Engine:
    """The engine that a docker command reaches."""
    words: list[str | Path] = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise SetupProblem(f"the Docker daemon does not answer within {ANSWER_SECONDS} s", START) from late
    except OSError as error:
        raise SetupProblem(f"{docker} does not run: {error.strerror}", INSTALL) from error
    said = done.stdout.strip()
    if done.returncode and "permission denied" in done.stderr.lower():
        raise SetupProblem("Docker refuses this user", PERMIT)
    if done.returncode or not said:
        raise SetupProblem("the Docker daemon does not answer", START)
    version = re.match(r"(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) < OLDEST:
        raise SetupProblem(f"Docker {said} is too old", UPDATE)
    return Engine(docker, said)


def up(release: Release, progress: Progress | None = None) -> Engine:
    """Have an engine: the one that answers, or Debian's in the background, unpacked below our cache.

    Args:
        release: pins the engine's programs.
        progress: is told what is fetched.

    Raises:
        SetupProblem: this user or this machine cannot run one.
    """
    try:
        return find()
    except SetupProblem as none:
        if none.fix in (UPDATE, PERMIT):
            raise
    if os.geteuid() != 0:
        raise SetupProblem("a container engine of our own needs root", NEEDS_ROOT)
    if " cgroup" not in Path("/proc/mounts").read_text():
        raise SetupProblem("no cgroups are mounted here", "mount them (apt-get install cgroupfs-mount; cgroupfs-mount)")
    there = programs.provide(release, PROGRAMS, progress, use_path=False)
    docker = programs.provide(release, ["docker"], progress)["docker"]
    return _start(there["dockerd"], docker, [path.parent for path in there.values()])


def down() -> bool:
    """Stop the daemon that ``up`` started, and nobody else's; whether there was one."""
    pid = own_pid()
    if pid is None:
        _pid_file().unlink(missing_ok=True)
        return False
    os.kill(pid, signal.SIGTERM)
    if not poll(lambda: own_pid() is None, STOP_SECONDS, POLL_SECONDS):
        raise SetupProblem(f"dockerd (pid {pid}) still runs after {STOP_SECONDS} s", f"kill -9 {pid}")
    return True


def own_pid() -> int | None:
    """The daemon that ``up`` started, if it still runs."""
    try:
        pid = int(_pid_file().read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return None
    return pid if _data_flag() in words else None


def home() -> Path:
    """Where our daemon keeps its data and its log."""
    return cache_dir() / "engine"


def log() -> Path:
    return home() / "dockerd.log"


def _start(dockerd: Path, docker: Path, folders: Sequence[Path]) -> Engine:
    home().mkdir(parents=True, exist_ok=True)
    words: list[str | Path] = [dockerd, _data_flag(), f"--pidfile={_pid_file()}", *_limits()]
    with log().open("wb") as output:
        daemon = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(folders),
            cwd="/",
            start_new_session=True,  # it outlives this command
        )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask(docker)
        except SetupProblem as silent:
            if daemon.poll() is not None:
                raise SetupProblem(f"dockerd ended at once: {_last_line()}", f"read {log()}") from silent
            if time.monotonic() > deadline:
                daemon.terminate()
                raise SetupProblem(f"dockerd does not answer after {START_SECONDS} s", f"read {log()}") from silent
        time.sleep(POLL_SECONDS)  # not `poll`: a daemon that has ended ends this early


def _environment(folders: Sequence[Path]) -> Mapping[str, str]:
    """The daemon finds containerd, runc and iptables by PATH."""
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**os.environ, "PATH": ":".join([*map(str, folders), usual])}


def _limits() -> list[str]:
    """Without CAP_SYS_RESOURCE no process may raise a hard limit, so containers must not ask for more than is given."""
    if may_raise_limits():
        return []
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [f"--default-ulimit=nofile={most}:{most}"]


def may_raise_limits() -> bool:
    """Whether processes here have CAP_SYS_RESOURCE."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(effective and int(effective[1], 16) >> CAP_SYS_RESOURCE & 1)


def _fetched_command() -> str | None:
    """The docker command that ``up`` fetched on a machine without one."""
    return next((str(path) for path in sorted((cache_dir() / "store" / "docker").glob("*/files/bin/docker"))), None)


def _last_line() -> str:
    lines = [line for line in log().read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _pid_file() -> Path:
    return home() / "dockerd.pid"


def _data_flag() -> str:
    return f"--data-root={home() / 'data'}"
