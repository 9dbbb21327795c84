"""Another release on a platform that is up: what differs is replaced, if traffic can do without it for a moment."""

from collections.abc import Sequence

from inferencebox.errors import SetupProblem
from inferencebox.providers import pins
from inferencebox.release import Release

from .platform import LocalPlatform
from .supervisor import Program

REPLACEABLE = {"ratelimit": "ratelimit", "redis-server": "redis"}
"""Program of a release -> the one process that runs it. Tier 1 lets requests through while it can't ask these two
(TRF-16). Of the others there is only one process, too: while that was replaced, requests would fail."""


def wanted(before: Release, after: Release) -> list[str]:
    """The programs to be replaced.

    Raises:
        SetupProblem: the two releases differ in what can't be replaced on a platform that is up.
    """
    layers = [name for name in pins.changed_layers(before, after) if _runs_here(name, before, after)]
    fixed = [name for name in layers if not _programs(name, after) <= REPLACEABLE.keys()]
    if fixed:
        raise SetupProblem(
            f"a local platform that is up keeps its {', '.join(fixed)}: the release {after.name} has another",
            "ibox down, then ibox up --release with that",
        )
    return sorted(name for layer in layers for name in _programs(layer, after))


def replace(platform: LocalPlatform, names: Sequence[str], before: Sequence[Program], after: Sequence[Program]) -> None:
    """Run other programs in the place of those that run, one after the other; if one does not get ready, the old ones.

    Args:
        names: as releases call them.
        before, after: how tier 1's processes run, and are to run from now on.

    Raises:
        SetupProblem: one did not get ready: which, and its last words.
    """
    try:
        _run(platform, names, after)
    except SetupProblem:
        _run(platform, names, before)
        raise


def _run(platform: LocalPlatform, names: Sequence[str], programs: Sequence[Program]) -> None:
    processes = [REPLACEABLE[name] for name in names]
    platform.parts.supervisor.add([program for program in programs if program.name in processes])
    for process in processes:
        platform.parts.supervisor.stop(process)
        platform.start(process)


def _runs_here(layer: str, *releases: Release) -> bool:
    return any(layer in release.layers and not release.layers[layer].needs_nodes for release in releases)


def _programs(layer: str, release: Release) -> set[str]:
    """None of a layer that is no longer there is no program: that can't be replaced either."""
    return set(release.layers[layer].programs) if layer in release.layers else {layer}
