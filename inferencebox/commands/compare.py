"""`ibox compare`: are several runs of one mind?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inferencebox.report.comparing import differences
from inferencebox.report.reading import load

DIFFERENT = 1
EXAMPLES = """
[bold]Examples[/bold]

  ibox compare monday/ tuesday/run.jsonl

  for n in 1 2 3; do pytest -p randomly --randomly-seed=$n --reports=runs/$n tests; done; ibox compare runs/*
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(compare)


def compare(runs: Annotated[list[Path], typer.Argument(help="Each a run.jsonl, or its folder.")]) -> None:
    """Say which tests recorded runs did not judge the same, and why not: flakes, or changes between releases.

    Exit code 0: the same verdicts in all; 1: not; 2: there is no such run.
    """
    console = Console(highlight=False, soft_wrap=True)
    found = differences([load(run) for run in runs])
    for difference in found:
        console.print(f"{difference.scenario} {difference.test}: {', '.join(difference.verdicts)}", markup=False)
        for reason in difference.reasons:
            console.print(f"    {reason}", markup=False)
    console.print(f"{len(runs)} runs, {len(found)} tests judged differently" if found else f"{len(runs)} runs agree")
    raise typer.Exit(DIFFERENT if found else 0)
