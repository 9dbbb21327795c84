"""Third-party programs of a release: found on PATH, fetched or built once, cached by content.

``provide(release, ["etcd", "kube-apiserver"])`` gives the programs' paths by name;
``module_files(release, "istio") / "manifests/charts/base/files"`` is where Istio's CRDs are.
"""

from collections.abc import Sequence
from pathlib import Path

from inferencebox.programs.progress import Progress, Silent, shown
from inferencebox.programs.provision import provisioner
from inferencebox.release import Release

__all__ = ["Progress", "are_there", "module_files", "provide", "shown"]


def provide(
    release: Release,
    names: Sequence[str],
    progress: Progress | None = None,
    *,
    again: bool = False,
    use_path: bool = True,
) -> dict[str, Path]:
    """The programs of these names, and only these, ready to run.

    Args:
        release: the pins.
        names: programs of the release; ``files-<layer>`` for what ``module_files`` gives.
        progress: is told what happens; see ``shown``.
        again: make them anew even if the cache has them.
        use_path: take a program from PATH when it is the pinned version there.
    """
    return provisioner(release, progress or Silent(), again, use_path).provide(release.select(names))


def are_there(release: Release, names: Sequence[str]) -> bool:
    """Whether the cache has all of these programs, so that none would have to be made."""
    return not provisioner(release, Silent()).missing(release.select(names))


def module_files(release: Release, layer: str, progress: Progress | None = None, *, again: bool = False) -> Path:
    """The folder with the files kept of a layer's Go module, laid out as in the module."""
    (path,) = provisioner(release, progress or Silent(), again).provide([release.files_of(layer)]).values()
    return path
