"""``ibox releases``: list them, check that their versions go together, and pin their images."""

from typing import Annotated

import typer
from rich.console import Console

from inferencebox.errors import SetupProblem
from inferencebox.paths import programs_dir
from inferencebox.pinning import ReleaseFile, Told, ask
from inferencebox.programs import shown
from inferencebox.programs.sources.go import check_pin
from inferencebox.release import DEFAULT_RELEASE, Release, find_file
from inferencebox.support import Level, findings

EXAMPLES = """
[bold]Examples[/bold]

  ibox releases                          which releases there are

  ibox releases check                    check the default release

  ibox releases check ./my-release.yaml  check a file of your own

  ibox releases pin 2025.06              ask the registries for the digests of its images

  ibox releases pin 2025.06 --write      and write them into its file
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List releases, check and pin them.", invoke_without_command=True, epilog=EXAMPLES)
    group.callback(epilog=EXAMPLES)(overview)
    group.command(epilog=EXAMPLES)(check)
    group.command(epilog=EXAMPLES)(pin)
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


def pin(
    name: Annotated[str, typer.Argument(help="Name or file of a release.")] = DEFAULT_RELEASE,
    write: Annotated[bool, typer.Option("--write", help="Write the digests into the release's file.")] = False,
) -> None:
    """Ask each image's registry for the digest of its tag; show it, or write it into the release's file.

    Only what the file itself says is pinned, not what it is based on; the rest of its text stays. An image whose
    registry does not give it is left as it is, named, and the exit code is 2. If a registry has another digest than
    the file says, somebody has moved a tag: both are named, nothing is written, and the exit code is 2.
    IBOX_REGISTRY=host:port asks a mirror.
    """
    Release.load(name)
    file = ReleaseFile.read(find_file(name))
    console = Console()
    with shown(console) as progress:
        told = ask(file.references, progress)
    _require_unmoved(file, told)
    new = file.with_digests(told.digests)
    if write:
        new.save()
    images, had, got = len(file.references), len(file.pinned), len(new.pinned - file.pinned)
    said = f"{images} images, {had} had a digest, {got} {'got' if write else 'would get'} one"
    console.print(f"release {name}: {said}", highlight=False, soft_wrap=True)
    if told.silent:
        (first, why), *others = told.silent.items()
        more = f", and {len(others)} more, named above" if others else ""
        raise SetupProblem(
            f"no registry told the digest of {first} ({why}){more}",
            "run this where their registries answer, or correct the tags",
        )


def _require_unmoved(file: ReleaseFile, told: Told) -> None:
    moved = file.unlike(told.digests)
    if moved:
        both = "; ".join(
            f"{each.reference} is {each.digest} here and {told.digests[each.reference]} there" for each in moved
        )
        raise SetupProblem(
            f"a registry has something else under {len(moved)} tags than is pinned: {both}",
            "compare with the vendor's; to take the new one, remove the digest first",
        )
