"""The box: namespaces of our own (user, mount, network, process) in which the whole local platform lives. Needs
no root.

Its first process is supervisord; when that ends, for whatever reason, the kernel ends every process of the box.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child")
USERNS_FIX = (
    "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces>0) or use --provider kind"
)
START_SECONDS = 15.0
NETNS_DIR = "/run/netns"
SHORT_STATE = Path("/state")
"""The state directory as seen inside, under a name short enough for Unix sockets below it."""


@dataclass(frozen=True)
class Box:
    """A running (or dead) box.

    Args:
        state: the instance's state directory.
        pid: the box's first process, as numbered outside.
    """

    state: Path
    pid: int

    @property
    def alive(self) -> bool:
        return _comm(self.pid) is not None and _started(self.pid) == _recorded_start(self.state)

    def enter(self, argv: Sequence[str], pod: str | None = None) -> list[str]:
        """The command line that runs ``argv`` inside the box, or inside one pod's network."""
        inner = ["nsenter", f"--net={NETNS_DIR}/{pod}", "--", *argv] if pod else list(argv)
        flags = ["--user", "--preserve-credentials", "--mount", "--net", "--pid", "--root", "--wdns=/"]
        return ["nsenter", f"--target={self.pid}", *flags, "--", *inner]

    def run(
        self,
        argv: Sequence[str],
        pod: str | None = None,
        stdin: bytes | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside; raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        return subprocess.run(
            self.enter(argv, pod),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def kill(self) -> None:
        """End the box and, with it, every process inside. Safe to call on a dead one."""
        if not self.alive:
            return
        os.kill(self.pid, signal.SIGKILL)
        poll(lambda: not self.alive, START_SECONDS)


def sockets_dir(state: Path) -> Path:
    """A short directory for Unix sockets (their paths must stay below 108 bytes), one per state directory."""
    digest = hashlib.sha256(str(state).encode()).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"ibox-{os.getuid()}-{digest}"


def find(state: Path) -> Box | None:
    """The box that belongs to this state directory, if one is alive."""
    try:
        record = json.loads((state / "box.json").read_text())
    except (OSError, ValueError):
        return None
    box = Box(state, int(record["pid"]))
    return box if box.alive else None


def require(state: Path) -> Box:
    """The box that belongs to this state directory; an error if it is not alive."""
    box = find(state)
    if box is None:
        raise SetupProblem(
            "the platform's box is not alive", "see box.log in its state directory; `ibox up` starts anew"
        )
    return box


def create(state: Path, python: Path) -> Box:
    """Make the namespaces and start supervisord in them.

    Args:
        state: the instance's state directory; ``supervisord.conf`` must be there.
        python: interpreter of this project, seen inside at the same path.
    """
    require_user_namespaces()
    sockets = sockets_dir(state)
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700, parents=True)
    log = (state / "logs" / "box.log").open("ab")
    outer = subprocess.Popen(
        [*UNSHARE, str(python), "-m", "inferencebox.providers.local.init", str(state)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    pid = _first_child(outer)
    box = Box(state, pid)
    (state / "box.json").write_text(json.dumps({"pid": pid, "started": _started(pid)}))
    _await_supervisor(box, outer)
    return box


def require_user_namespaces() -> None:
    """Fail early, with the fix, where the kernel does not let us make namespaces."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        raise SetupProblem("unshare and nsenter are missing", "install util-linux")
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise SetupProblem(f"user namespaces are not usable here ({tried.stderr.strip()})", USERNS_FIX)


def _first_child(outer: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    poll(lambda: outer.poll() is not None or children.read_text(), START_SECONDS, every=0.005)
    if outer.poll() is not None or not (listed := children.read_text().split()):
        raise SetupProblem("the box did not start", "see box.log in the state directory (`ibox status` names it)")
    return int(listed[0])


def _await_supervisor(box: Box, outer: subprocess.Popen[bytes]) -> None:
    socket = sockets_dir(box.state) / "supervisor.sock"
    poll(lambda: socket.exists() or outer.poll() is not None, START_SECONDS)
    if socket.exists():
        return
    tail = (box.state / "logs" / "box.log").read_text(errors="replace").strip().splitlines()[-1:]
    raise SetupProblem(f"the box did not start: {' '.join(tail)}", "see box.log in the state directory")


def _comm(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return None if stat.rsplit(")", 1)[1].split()[0] in "ZX" else stat


def _started(pid: int) -> str:
    """Start time in clock ticks: with the number it identifies a process even after numbers are reused."""
    stat = _comm(pid)
    return stat.rsplit(")", 1)[1].split()[19] if stat else ""


def _recorded_start(state: Path) -> str | None:
    try:
        return str(json.loads((state / "box.json").read_text())["started"])
    except (OSError, ValueError, KeyError):
        return None


def project_python() -> Path:
    """The interpreter to use inside: the one that runs us."""
    return Path(sys.executable)
