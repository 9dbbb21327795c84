"""`ibox demo` and `ibox test`: the two things a newcomer runs."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from inferencebox import command_line
from inferencebox.errors import exit_code
from inferencebox.paths import project_root

SERVICES = ("jwt_server", "management", "model_server", "default_backend", "alert_sink", "chargeback")
SELFTESTS = ("selftests", *(f"services/{name}/tests" for name in SERVICES))
WORKERS = 6
"""Three scenarios wait for a minute to pass and one brings a platform of its own up: beside them two can work."""
REPORTS = Path("reports")

Passed = Annotated[list[str] | None, typer.Argument(help="More arguments for pytest, after `--`.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("test")(run_tests)


def demo(
    only: Annotated[str, typer.Option("-k", help="Scenarios to run, as pytest's -k.")] = "",
    paced: Annotated[bool, typer.Option("--paced", help="Each step and its command, at an audience's pace.")] = False,
    workers: Annotated[int, typer.Option(help="Scenarios at the same time.")] = WORKERS,
    reports: Annotated[Path, typer.Option(help="Where results go.")] = REPORTS,
    more: Passed = None,
) -> None:
    """Bring the local platform up, run every scenario it can show, write the report, take the platform down.

    Exit code 0: every promise held; 1: one did not; 2: the environment is at fault.

    Examples:

      ibox demo

      ibox demo -k canary --paced

      ibox demo -- --reuse tests/security
    """
    command_line.end_when_told()
    pace = ["--demo"] if paced else ["-n", str(workers)]
    selection = ["-k", only] if only else []
    outcome = _pytest(["--reports", str(reports.absolute()), *pace, *selection, *(more or ["tests"])])
    subprocess.run(command_line.ibox("report", str(reports / "run.jsonl"), "--out", str(reports)), check=False)
    raise typer.Exit(outcome)


def run_tests(more: Passed = None) -> None:
    """Run the selftests and the services' tests, then the security scenarios on the local platform.

    Exit code 0: all passed; 1: something failed; 2: the environment is at fault.

    Examples:

      ibox test

      ibox test -- -x
    """
    command_line.end_when_told()
    arguments = more or []
    outcomes = [_pytest(["-q", "-n", "2", "-p", "no:cacheprovider", path, *arguments]) for path in SELFTESTS]
    outcomes.append(_pytest(["-n", "3", "--logs=if-built", "-m", "security", "tests", *arguments]))
    raise typer.Exit(max(outcomes))


def _pytest(arguments: Sequence[str]) -> int:
    """Run pytest in a process of its own."""
    began = time.monotonic()
    code = subprocess.run(command_line.pytest(*arguments), cwd=project_root(), check=False).returncode
    print(f"pytest {' '.join(arguments)}: exit code {code} after {time.monotonic() - began:.0f} s", flush=True)
    return exit_code(code)
