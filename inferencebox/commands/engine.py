"""``ibox engine``: a container engine for machines that have none."""

from typing import Annotated

import typer
from rich.console import Console

from inferencebox.programs import shown
from inferencebox.providers.kind import engine
from inferencebox.release import DEFAULT_RELEASE, Release

UP_EXAMPLES = """
[bold]Examples[/bold]

  ibox engine up                   have one: the Docker that answers, or Debian's in the background
"""
DOWN_EXAMPLES = """
[bold]Examples[/bold]

  ibox engine down                 stop the one that `ibox engine up` started; any other is left alone
"""
STATUS_EXAMPLES = """
[bold]Examples[/bold]

  ibox engine status               which one answers, and whose it is
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="A container engine for machines that have none.", no_args_is_help=True)
    group.command(epilog=UP_EXAMPLES)(up)
    group.command(epilog=DOWN_EXAMPLES)(down)
    group.command(epilog=STATUS_EXAMPLES)(status)
    app.add_typer(group, name="engine")


def up(
    release: Annotated[str, typer.Option(help="Name or file of a set of pinned versions.")] = DEFAULT_RELEASE,
) -> None:
    """Have a container engine: the one that answers is left as it is; else Debian's is fetched and started (as root).

    It is unpacked below our cache, not installed. Exit code 2: this machine cannot have one; the line says why.
    """
    console = Console(highlight=False, soft_wrap=True)
    with shown(console) as progress:
        found = engine.up(Release.load(release), progress)
    console.print(_whose(found), markup=False)


def down() -> None:
    """Stop the engine that `ibox engine up` started, with every container in it; nobody else's."""
    stopped = engine.down()
    Console().print("stopped" if stopped else "There is none of ours.", highlight=False)


def status() -> None:
    """Say which engine answers. Exit code 2: none that can be used."""
    Console(highlight=False, soft_wrap=True).print(_whose(engine.find()), markup=False)


def _whose(found: engine.Engine) -> str:
    pid = engine.own_pid()
    owner = f"ours, pid {pid}, log {engine.log()}" if pid else "not started by us"
    return f"Docker {found.version} answers ({owner})"
