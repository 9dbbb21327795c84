"""``ibox releases``: list them, and check that their versions go together."""

from typing import Annotated

import typer
from rich.console import Console

from inferencebox.errors import SetupProblem
from inferencebox.paths import programs_dir
from inferencebox.programs.sources.go import check_pin
from inferencebox.release import DEFAULT_RELEASE, Release
from inferencebox.support import Level, findings

EXAMPLES = """
[bold]Examples[/bold]

  ibox releases                          which releases there are

  ibox releases check                    check the default release

  ibox releases check ./my-release.yaml  check a file of your own
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List releases and check them.", invoke_without_command=True, epilog=EXAMPLES)
    group.callback(epilog=EXAMPLES)(overview)
    group.command(epilog=EXAMPLES)(check)
    app.add_typer(group, name="releases")


def overview(context: typer.Context) -> None:
    """List the releases there are."""
    if context.invoked_subcommand:
        return
    console = Console()
    for name in Release.names():
        mark = "*" if name == DEFAULT_RELEASE else " "
        console.print(f"{mark} {name}  {Release.load(name).about}", markup=False, highlight=False, soft_wrap=True)


def check(
    name: Annotated[str, typer.Argument(help="Name or file of a release.")] = DEFAULT_RELEASE,
) -> None:
    """Check a release: its file, its pins against programs/*/go.mod, and that its versions go together.

    Combinations outside of what the projects document are warnings; those known not to work, and versions that nobody
    has looked up, are refused.
    """
    release = Release.load(name)
    for item in release.items.values():
        if item.module:
            check_pin(item, programs_dir())
    console = Console()
    found = findings(release)
    for finding in found:
        console.print(f"{finding.level}: {finding.text}", markup=False, highlight=False, soft_wrap=True)
    refused = sum(finding.level is Level.REFUSE for finding in found)
    if refused:
        raise SetupProblem(
            f"release {release.name} has {refused} combinations that are refused",
            "change the versions, or look them up",
        )
    console.print(
        f"release {release.name}: {len(release.items)} programs and files, {len(found)} warnings", highlight=False
    )
