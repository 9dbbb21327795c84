"""Where platforms come from. The only place that knows which providers there are.

Modules of a provider also run as small programs inside the platform, which must start fast: what is heavy to import is
imported where it is used.
"""

import contextlib
from typing import TYPE_CHECKING

from inferencebox.errors import SetupProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferencebox.layers.dag import Listener
    from inferencebox.platform import Platform
    from inferencebox.programs import Progress
    from inferencebox.providers.cluster.lease import Lease
    from inferencebox.providers.kubernetes.platform import KubernetesPlatform
    from inferencebox.providers.options import ClusterOptions, PlatformOptions

PROVIDERS = ("local", "kind", "cluster")
CLUSTER_MARK = "cluster"
"""In the state folder of a platform on somebody's cluster, from before anything is made there."""
KIND_MARK = "kind-cluster"
"""In the state folder of a platform with a Kind cluster of its own, from before the cluster is made."""


def open_platform(
    provider: str,
    instance: str,
    release: str,
    options: "PlatformOptions",
    progress: "Progress | None" = None,
    listener: "Listener | None" = None,
) -> "Platform":
    """A platform that is up when this returns: the one of this name if it is up already, else a new one."""
    from inferencebox.programs.progress import Silent
    from inferencebox.release import Release

    pinned, progress, listener = Release.load(release), progress or Silent(), listener or (lambda *_: None)
    match provider:
        case "local":
            from inferencebox.providers.local import up

            return up.bring_up(instance, pinned, options, progress, listener)
        case "kind":
            from inferencebox.providers.kind import up as kind

            return kind.bring_up(instance, pinned, options, progress, listener)
        case "cluster":
            from inferencebox.providers.cluster import up as cluster

            return cluster.bring_up(instance, pinned, options, progress, listener)
    raise SetupProblem(f"there is no provider {provider!r}", f"choose one of {', '.join(PROVIDERS)}")


def attach(instance: str) -> "Platform":
    """The platform of this name, which must be up."""
    if _is_on_kubernetes(instance):
        from inferencebox.providers.kubernetes.platform import KubernetesPlatform

        return KubernetesPlatform(instance)
    from inferencebox.providers.local.platform import LocalPlatform

    return LocalPlatform(instance)


def running(
    provider: str, instance: str, options: "PlatformOptions", progress: "Progress | None" = None
) -> "Platform | None":
    """The platform of this name that is up, if there is one; on somebody's cluster whoever brought it up.

    Raises:
        SetupProblem: the cluster does not answer.
    """
    from inferencebox.programs.progress import Silent

    if provider == "cluster":
        from inferencebox.providers.cluster import up as cluster

        return cluster.running(instance, options, progress or Silent())
    try:
        return attach(instance)
    except SetupProblem:
        return None


def held(platform: "Platform", purpose: str) -> "contextlib.AbstractContextManager[Lease | None]":
    """Nobody else works meanwhile with a platform that others can reach too.

    Args:
        purpose: what for, as others are told.

    Raises:
        SetupProblem: somebody does: who.
    """
    if platform.provider != "cluster":
        return contextlib.nullcontext()
    from inferencebox.providers.cluster import up as cluster
    from inferencebox.providers.kubernetes.platform import KubernetesPlatform

    assert isinstance(platform, KubernetesPlatform)
    return cluster.held(platform, purpose)


def suite_image(platform: "KubernetesPlatform", progress: "Progress") -> str:
    """Have the image of the suite where pods of this platform find it; what the nodes call it.

    Raises:
        SetupProblem: no node has it, and no registry either.
    """
    from inferencebox.providers.kubernetes.images import SUITE
    from inferencebox.release import Release

    release = Release.load(platform.release)
    if platform.provider == "kind":
        from inferencebox.providers.kind import up as kind

        kind.load(platform.instance, release, [SUITE], progress)
    return release.images[SUITE].reference


def adopt(instance: str, options: "ClusterOptions") -> None:
    """Have this machine know of a platform on somebody's cluster, so that it can be taken down from here.

    Raises:
        SetupProblem: there is none of this name.
    """
    from inferencebox.providers.cluster import up as cluster

    cluster.adopt(instance, options)


def forget(instance: str) -> None:
    """Clear what this machine keeps of a platform on somebody's cluster, and leave the cluster as it is.

    Raises:
        SetupProblem: it is not on somebody's cluster.
    """
    from inferencebox.paths import state_dir
    from inferencebox.providers.cluster import up as cluster

    if not (state_dir(instance) / CLUSTER_MARK).exists():
        raise SetupProblem(f"{instance} is not a platform on somebody's cluster", f"ibox down --instance {instance}")
    cluster.forget(instance)
    _clear_away(instance)


def close_platform(instance: str, *, keep_logs: bool = False, tell: "Callable[[str], None]" = lambda _: None) -> None:
    """Take the platform of this name down, whatever state it is in.

    Args:
        tell: is told what is done, and what is left for others' sake.
    """
    from inferencebox.paths import state_dir

    if (state_dir(instance) / CLUSTER_MARK).exists():
        from inferencebox.providers.cluster import up as cluster

        for kept in cluster.take_down(instance, keep_logs, lambda what: tell(f"removing {what}")):
            tell(f"left {kept}")
    elif (state_dir(instance) / KIND_MARK).exists():
        from inferencebox.providers.kind import up as kind

        kind.take_down(instance, keep_logs=keep_logs)
    else:
        from inferencebox.providers.local import up

        up.take_down(instance, keep_logs=keep_logs)
    _clear_away(instance)


def _clear_away(instance: str) -> None:
    from inferencebox.paths import state_dir

    with contextlib.suppress(OSError):  # logs are left in it
        state_dir(instance).rmdir()


def instances() -> list[str]:
    """The names of all platforms on this machine: running ones, and what is left of others."""
    from inferencebox.paths import state_dir

    root = state_dir("any").parent
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []


def _is_on_kubernetes(instance: str) -> bool:
    from inferencebox.paths import state_dir
    from inferencebox.providers.kubernetes.state import path

    return path(state_dir(instance)).exists()
