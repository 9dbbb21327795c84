"""The ``ibox`` command line. Only here does a ``SetupProblem`` become one line and exit code 2."""

# ruff: noqa: E402  # what is imported before it is compiled each time
from inferencebox.bytecode import keep_compiled

keep_compiled()

import sys

import typer
from rich.console import Console

from inferencebox.commands import (
    build,
    bundle,
    cache,
    compare,
    doctor,
    engine,
    job,
    nightly,
    platform,
    releases,
    report,
    run,
    sabotage,
)
from inferencebox.errors import ENVIRONMENT, SetupProblem

COMMANDS = (platform, run, job, sabotage, nightly, report, compare, build, cache, bundle, engine, doctor, releases)

app = typer.Typer(
    name="ibox",
    help="Stand up an AI inference platform, prove what it promises, and show it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    command.register(app)


@app.callback()
def ibox() -> None:
    """Keeps every command a command of its own, however many there are."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SetupProblem as problem:
        Console(stderr=True).print(f"ibox: {problem}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(ENVIRONMENT)


if __name__ == "__main__":
    main()
