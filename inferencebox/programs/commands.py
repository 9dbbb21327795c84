"""Child processes of a build: logged, stoppable together, ending when we end."""

import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferencebox.errors import SetupProblem

TAIL_BYTES = 4000
STOP_SECONDS = 5
NO_SPACE = "no space left on device"


class CommandFailed(Exception):
    """A command ended with an error. ``tail`` is the end of what it said."""

    def __init__(self, argv: Sequence[str], status: int, tail: str, log: Path) -> None:
        lines = [line for line in tail.splitlines() if line.strip()]
        super().__init__(f"{Path(argv[0]).name} ended with {status}: {lines[-1].strip() if lines else 'no message'}")
        self.tail = tail
        self.log = log


class Commands:
    """Runs commands for several threads; ``stop`` ends all that run."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self._stopped = False

    def run(self, name: str, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> str:
        """Run to the end; the log has everything, the answer is standard output."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        words = [*_tied_to_us(), *(str(word) for word in argv)]
        with log.open("wb") as errors:
            process = self._start(words, cwd, env, errors.fileno())
            try:
                output, _ = process.communicate()
            finally:
                with self._guard:
                    self._running.discard(process)
        if process.returncode and self._stopped:
            raise InterruptedError("stopped")
        if process.returncode and NO_SPACE in _tail(log).lower():
            raise SetupProblem(f"{name} ran out of disk space", f"make room, then run this again; see {log}")
        if process.returncode:
            raise CommandFailed([str(argv[0])], process.returncode, _tail(log) or output.decode(errors="replace"), log)
        return output.decode(errors="replace")

    def stop(self) -> None:
        """End every running command and start no other."""
        with self._guard:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, words: list[str], cwd: Path, env: Mapping[str, str], errors: int) -> "subprocess.Popen[bytes]":
        with self._guard:
            if self._stopped:
                raise InterruptedError("stopped")
            process = subprocess.Popen(
                words, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
            self._running.add(process)
            return process


def _tied_to_us() -> list[str]:
    """Words before a command that let it end with the thread that started it, even when we are killed."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _tail(log: Path) -> str:
    with log.open("rb") as content:
        content.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return content.read().decode(errors="replace")
