"""``ibox sabotage``: break the platform on purpose and see whether the scenarios notice."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inferencebox import command_line, providers
from inferencebox.paths import project_root
from inferencebox.sabotage.catalogue import catalogue
from inferencebox.sabotage.healthy import HOURS
from inferencebox.sabotage.outcomes import Record
from inferencebox.sabotage.runner import Runner
from inferencebox.sabotage.suite import Suite, claims
from inferencebox.sabotage.terminal import Terminal

EXAMPLES = """
[bold]Examples[/bold]

  ibox sabotage                          every way of the catalogue, one at a time

  ibox sabotage jwt.removed limits.*     some of them

  ibox sabotage --list                   what there is, what it breaks, who must notice

  ibox sabotage --resume                 go on where an earlier run ended

  ibox sabotage --instance default scaling.*    on the platform that is up, whoever provides it

  ibox sabotage --instance default --healthy reports/run.jsonl    after `pytest --reuse`: what passed there is green

Exit code 0: every sabotage was noticed by all that promise it, by nobody else, and healed; 1: not; 2: the environment.
"""

Names = Annotated[
    list[str] | None, typer.Argument(help="Sabotages; `limits.*` for all that begin so.", show_default=False)
]


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(sabotage)


def sabotage(
    names: Names = None,
    show: Annotated[bool, typer.Option("--list", help="Say what there is and break nothing.")] = False,
    instance: Annotated[str, typer.Option(help="Name of the platform; used as it is if it is up.")] = "sabotage",
    provider: Annotated[
        str, typer.Option(help=f"Who brings it up if it is not: {', '.join(providers.PROVIDERS)}.")
    ] = "local",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform running afterwards.")] = False,
    jobs: Annotated[int, typer.Option(help="Scenarios at the same time.")] = 2,
    reports: Annotated[Path | None, typer.Option(help="Where the kill matrix goes; default: reports/.")] = None,
    healthy: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.JSONL",
            help=f"Record of a run on this platform ({HOURS:.0f} hours old at most): what passed is not run first.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what an earlier run has seen killed.")] = False,
) -> None:
    """Break the platform in one way at a time: the scenarios that promise to notice must turn red, and no others."""
    console = Console()
    chosen = catalogue().choose(tuple(names or ()))
    suite = Suite(claims(), instance, jobs)
    folder = reports.absolute() if reports else project_root() / "reports"
    record = Record.resume(folder) if resume else Record(folder)
    terminal = Terminal(console)
    runner = Runner(catalogue(), suite, record, terminal, instance, provider, healthy)
    if show:
        for each in chosen:
            noticed = " ".join(runner.expected(each.name)) or each.pending or "nobody"
            console.print(f"{each.name}: {each.title}. Breaks: {each.breaks}. Noticed by: {noticed}", soft_wrap=True)
        return
    command_line.end_when_told()  # what is broken is healed on the way out
    try:
        runner.run(chosen)
    finally:
        terminal.table(record)
        if runner.brought_up and not keep:
            providers.close_platform(instance)
    asked = [record.outcomes[each.name] for each in chosen if runner.expected(each.name)]
    raise typer.Exit(0 if asked and all(outcome.good for outcome in asked) else 1)
