"""``ibox doctor``: whether this machine can run the platform."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from inferencebox.doctor import Diagnosis, State, cluster, examine
from inferencebox.errors import SetupProblem

EXAMPLES = """
[bold]Examples[/bold]

  ibox doctor           what is here and what is missing, with what to do

  ibox doctor --json    the same for programs
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check that this machine can run the local platform, and say which cluster would be taken.

    Exit code 2 if something needed is missing.
    """
    found = [*examine(), *cluster()]
    if as_json:
        typer.echo(json.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
    else:
        for diagnosis in found:
            Console().print(_line(diagnosis), markup=False, highlight=False, soft_wrap=True)
    missing = [diagnosis for diagnosis in found if diagnosis.state is State.MISSING]
    if missing:
        raise SetupProblem(f"missing: {', '.join(diagnosis.check for diagnosis in missing)}", missing[0].fix)


def _line(diagnosis: Diagnosis) -> str:
    line = f"{diagnosis.state:8}{diagnosis.check}: {diagnosis.detail}"
    return f"{line}. Fix: {diagnosis.fix}" if diagnosis.fix else line
