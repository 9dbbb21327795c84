"""Container images of a release as archives that engines load: pulled by digest, or put together here.

``provide(release, ["istio-pilot", "pause"])`` gives the archives' paths by name. ``docker load`` and ``ctr images
import`` take them; ``release.images[name].reference`` is what the image is called in its archive.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from inferencebox.images.workshop import Workshop
from inferencebox.programs.progress import Progress
from inferencebox.release import Release

__all__ = ["obstacle", "provide"]


def provide(
    release: Release, names: Sequence[str], progress: Progress | None = None, *, again: bool = False
) -> Mapping[str, Path]:
    """Archives of the images of these names.

    Args:
        release: the pins.
        names: images of the release.
        progress: is told what happens; see ``programs.shown``.
        again: make them anew even if the cache has them (not the programs in them).
    """
    return Workshop(release, progress, again).provide(names)


def obstacle(release: Release, name: str) -> str | None:
    """Why the image of this name can't be had on this machine; none if it can, or is in the cache."""
    return Workshop(release).obstacle(name)
