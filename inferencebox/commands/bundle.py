"""``ibox bundle``: take everything to a machine without a network."""

from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console

from inferencebox import bundle
from inferencebox.programs import shown
from inferencebox.release import DEFAULT_RELEASE, Release

CREATE_EXAMPLES = """
[bold]Examples[/bold]

  ibox bundle create /media/stick/box                      all that the platform on Kind needs

  ibox bundle create --provider local /media/stick/small   what the local platform needs
"""
VERIFY_EXAMPLES = """
[bold]Examples[/bold]

  ibox bundle verify /media/stick/box                      every file against its checksum

  cd /media/stick/box && sha256sum --check SHA256SUMS      the same without us
"""
LOAD_EXAMPLES = """
[bold]Examples[/bold]

  ibox bundle load /media/stick/box && ibox up --provider kind     on the machine without a network
"""
Folder = Annotated[Path, typer.Argument(help="The bundle's folder.")]


class For(StrEnum):
    """Whom a bundle is for."""

    kind = "kind"
    local = "local"


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Take everything to a machine without a network.", no_args_is_help=True)
    group.command(epilog=CREATE_EXAMPLES)(create)
    group.command(epilog=VERIFY_EXAMPLES)(verify)
    group.command(epilog=LOAD_EXAMPLES)(load)
    app.add_typer(group, name="bundle")


def create(
    folder: Folder,
    provider: Annotated[For, typer.Option(help="Which platform it is for.")] = For.kind,
    release: Annotated[str, typer.Option(help="Name or file of a set of pinned versions.")] = DEFAULT_RELEASE,
) -> None:
    """Get everything that a platform needs, images, charts, CRDs and programs, into one folder with checksums.

    An interrupted one goes on when it is run again. The other machine needs the same checkout of the project, its
    Python environment, and for Kind a Docker.
    """
    console, began = Console(highlight=False, soft_wrap=True), monotonic()
    with shown(console) as progress:
        contents = bundle.create(folder, Release.load(release), provider, progress)
    _tell(console, f"{folder} is complete", contents, began)


def verify(folder: Folder) -> None:
    """Hold every file of a bundle against its checksum. Exit code 2: one is missing, changed or added."""
    console, began = Console(highlight=False, soft_wrap=True), monotonic()
    _tell(console, f"{folder} is as it was made", bundle.verify(folder), began)


def load(folder: Folder) -> None:
    """Verify a bundle, then put what is in it into this machine's cache; `ibox up` then needs no network."""
    console, began = Console(highlight=False, soft_wrap=True), monotonic()
    with shown(console) as progress:
        contents = bundle.load(folder, progress)
    _tell(console, f"{folder} is loaded", contents, began)


def _tell(console: Console, what: str, contents: bundle.Contents, began: float) -> None:
    console.print(
        f"{what}: release {contents.release}, {contents.entries} entries, {contents.size / 1e9:.1f} GB, "
        f"{monotonic() - began:.0f} s",
        markup=False,
    )
