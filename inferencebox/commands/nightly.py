"""`ibox nightly`: releases x providers, and one page for the morning."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inferencebox.errors import ENVIRONMENT, SetupProblem
from inferencebox.nightly.legs import changes, legs
from inferencebox.nightly.night import run_night
from inferencebox.nightly.page import headline, markdown, page
from inferencebox.nightly.record import NightRecord
from inferencebox.paths import project_root
from inferencebox.providers import PROVIDERS
from inferencebox.release import Release

EXAMPLES = """
[bold]Examples[/bold]

  ibox nightly                                         every release on every provider that makes its own platform

  ibox nightly --provider local -- -m security -n 2    one provider, and arguments for pytest

  ibox nightly --resume                                go on with a night that was interrupted

  ibox nightly --list                                  which legs there are, and which are refused
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(nightly)


def nightly(
    release: Annotated[list[str] | None, typer.Option(help="Releases; default: all.", show_default=False)] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="Providers; default: all that make a platform.", show_default=False)
    ] = None,
    reports: Annotated[Path | None, typer.Option(help="Where the night goes; default: reports/nightly.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out legs that have ended.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Say which legs there are and run none.")] = False,
    more: Annotated[
        list[str] | None, typer.Argument(help="Arguments for pytest, after `--`.", show_default=False)
    ] = None,
) -> None:
    """Run the suite for each release on each provider, one after another, and put the results on one page.

    A leg whose versions don't go together is not run, and said so. The summary also goes to $GITHUB_STEP_SUMMARY.

    Exit code 0: everything that was tried held; 1: a promise did not; 2: a leg could not be judged.
    """
    console = Console(highlight=False, soft_wrap=True)
    wanted = legs(release or Release.names(), provider or [name for name in PROVIDERS if name != "cluster"])
    if list_only:
        for leg in wanted:
            console.print(f"{leg.name}: {leg.refusal() or 'goes together'}", markup=False)
        return
    folder = (reports or project_root() / "reports" / "nightly").absolute()
    outcomes = run_night(wanted, folder, more or ["tests"], resume, lambda line: console.print(line, markup=False))
    changed = changes(NightRecord(folder).night_before(), outcomes)
    (folder / "index.html").write_text(page(outcomes, changed), encoding="utf-8")
    summary = markdown(outcomes, changed)
    (folder / "summary.md").write_text(summary, encoding="utf-8")
    _tell_github(summary)
    console.print(f"{headline(outcomes)}. {folder / 'index.html'}", markup=False)
    words = {outcome.word for outcome in outcomes}
    raise typer.Exit(1 if "broken" in words else ENVIRONMENT if "not judged" in words else 0)


def _tell_github(summary: str) -> None:
    """A job's summary is a file that GitHub Actions names in the environment."""
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(summary)
        except OSError as error:
            raise SetupProblem(
                f"{target} can't be written to ({error.strerror})", "unset GITHUB_STEP_SUMMARY"
            ) from error
