"""``ibox report``: draw the reports of a recorded run again."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inferencebox.paths import project_root
from inferencebox.report.cncf import statement
from inferencebox.report.reading import load
from inferencebox.report.render import render

EXAMPLES = """
[bold]Examples[/bold]

  ibox report                                  the newest run, into reports/

  ibox report old/run.jsonl --out /tmp/old     another run, somewhere else

  ibox report --sign key.pem                   sign the attestation (Ed25519)
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(report)


def report(
    run: Annotated[Path | None, typer.Argument(help="A run.jsonl or its folder; default: reports/.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the reports go; default: beside the run.")] = None,
    allure: Annotated[bool, typer.Option(help="Draw the Allure report too (needs Node.js).")] = True,
    sign: Annotated[Path | None, typer.Option(help="Ed25519 private key (PEM) to sign the attestation with.")] = None,
) -> None:
    """Draw all reports of a recorded run: first page, Allure, JUnit, profile, CNCF evidence, attestation.

    Needs nothing but the record: no platform.
    """
    console = Console(highlight=False, soft_wrap=True)
    source = run or project_root() / "reports"
    made = render(source, out, with_allure=allure, key=sign)
    for file in made.files:
        console.print(str(file), markup=False)
    for reason in made.left_out:
        console.print(f"left out {reason}", markup=False)
    console.print(f"CNCF Kubernetes AI Conformance: {statement(load(source))}", markup=False)
