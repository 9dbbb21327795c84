"""The suite as the runner sees it: which scenario claims to notice what, and the verdicts of a run of some of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.journal import RUN_FILE, read
from inferencebox.paths import project_root
from inferencebox.waiting import SCALE_VARIABLE

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
ALONE_SECONDS = 8.0
"""Scenarios that take less in all are run by one process: two would take longer to start."""
START_SECONDS = 60.0
SLOWNESS = 6.0
CLEANING_SECONDS = 30.0
WORST = ("failed", "error", "not exercised", "passed")


@dataclass(frozen=True)
class Claim:
    """What a scenario says of itself."""

    id: str
    test: str
    title: str
    sabotage: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What became of a scenario: passed, failed, error, not exercised, or (it gave none) missing."""

    verdict: str
    first_line: str = ""
    seconds: float = 0.0


def claims() -> dict[str, Claim]:
    """All scenarios there are tests of, by ID."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "claims.json"
        done = _pytest(["--collect-only", "--claims", str(file), "tests"], {}, START_SECONDS * 2)
        if not file.exists():
            raise SetupProblem(
                f"the scenarios could not be collected: {_last_line(done)}", "run `pytest --collect-only`"
            )
        found = json.loads(file.read_text())
    return {
        name: Claim(name, entry["test"], entry["title"], tuple(entry["sabotage"]), float(entry["seconds"]))
        for name, entry in found.items()
    }


@dataclass(frozen=True)
class Suite:
    """Runs scenarios against one platform.

    Args:
        jobs: how many at the same time, at most.
    """

    claims: Mapping[str, Claim]
    instance: str
    jobs: int

    def run(self, names: Iterable[str], patience: float = 1.0) -> dict[str, Verdict]:
        """The verdicts of some scenarios; those that gave none (the run hung or died) are `missing`.

        Args:
            patience: waits for what is promised are that much shorter.
        """
        chosen = [self.claims[name] for name in dict.fromkeys(names)]
        if not chosen:
            return {}
        seconds = sum(claim.seconds for claim in chosen)
        parallel = ["-n", str(min(self.jobs, len(chosen)))] if len(chosen) > 1 and seconds > ALONE_SECONDS else []
        limit = START_SECONDS + SLOWNESS * (seconds + 30 * len(chosen))
        with tempfile.TemporaryDirectory(prefix="inferencebox-sabotage-") as folder:
            options = ["--reuse", "--instance", self.instance, "--reports", folder, *parallel]
            _pytest([*options, *(claim.test for claim in chosen)], {SCALE_VARIABLE: str(patience)}, limit)
            found = verdicts(Path(folder))
        return {
            claim.id: found.get(claim.id, Verdict("missing", "the run ended before it had a verdict"))
            for claim in chosen
        }


def verdicts(folder: Path) -> dict[str, Verdict]:
    """Of a recorded run: the worst of each scenario's tests."""
    if not (folder / RUN_FILE).exists():
        return {}
    found: dict[str, Verdict] = {}
    for event in read(folder):
        if event["event"] != "verdict":
            continue
        name, seconds = str(event["scenario"]), float(str(event["seconds"]))
        verdict = Verdict(str(event["verdict"]), str(event.get("reason", "")), seconds)
        known = found.get(name)
        if known is None or WORST.index(verdict.verdict) < WORST.index(known.verdict):
            found[name] = verdict
    return found


def _pytest(arguments: list[str], settings: Mapping[str, str], limit: float) -> subprocess.CompletedProcess[str]:
    """Bounded: a run that hangs is ended with all its workers."""
    process = subprocess.Popen(
        [*PYTEST, *arguments],
        cwd=project_root(),
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        output = _end(process)
    except BaseException:
        _end(process)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def _end(process: subprocess.Popen[str]) -> str:
    """As Ctrl-C would, so that tests clean up behind themselves; and if that takes too long, at once."""
    for way in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, way)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=CLEANING_SECONDS)[0]
    return ""


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "no output")
