"""Runs of pytest, each a process of its own, started from one that has imported already what takes long to import."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from inferencebox.paths import project_root

PRELOADED = ["__main__", "_pytest.terminal", "_pytest.assertion.rewrite", "kubernetes.client", "inferencebox.traffic"]
CLEANING_SECONDS = 30.0
_context = multiprocessing.get_context("forkserver")


def run(runs: Sequence[Sequence[str]], settings: Mapping[str, str], limit: float) -> list[str]:
    """Several pytests at once, with these arguments each; what they wrote. What takes too long is ended."""
    _context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="inferencebox-pytest-") as folder:
        outputs = [Path(folder) / str(number) for number in range(len(runs))]
        processes = [
            _context.Process(target=_pytest, args=([*arguments], dict(settings), str(output)), daemon=False)
            for arguments, output in zip(runs, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        try:
            deadline = time.monotonic() + limit
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                _end(process)
        return [output.read_text(errors="replace") if output.exists() else "" for output in outputs]


def _pytest(arguments: list[str], settings: dict[str, str], output: str) -> None:
    """What ``python -m pytest`` does, in a process that is new but not empty."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(settings)
    os.chdir(project_root())
    sys.path.insert(0, str(project_root()))
    sys.argv = ["pytest", *arguments]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


def _end(process: ForkServerProcess) -> None:
    """As Ctrl-C would, so that tests clean up behind themselves; and if that takes too long, at once."""
    for way in (signal.SIGINT, signal.SIGKILL):
        if not process.is_alive() or process.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, way)
        process.join(CLEANING_SECONDS)
