"""Where platforms come from. The only place that knows which providers there are.

Modules of a provider also run as small programs inside the platform, which must start fast: what is heavy to import is
imported where it is used.
"""

import contextlib
from typing import TYPE_CHECKING

from inferencebox.errors import SetupProblem

if TYPE_CHECKING:
    from inferencebox.layers.dag import Listener
    from inferencebox.platform import Platform
    from inferencebox.programs import Progress
    from inferencebox.providers.options import PlatformOptions

PROVIDERS = ("local", "kind", "cluster")
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
            raise SetupProblem(f"provider {provider!r} is not built yet", "use --provider local or kind")
    raise SetupProblem(f"there is no provider {provider!r}", f"choose one of {', '.join(PROVIDERS)}")


def attach(instance: str) -> "Platform":
    """The platform of this name, which must be up."""
    if _is_on_kubernetes(instance):
        from inferencebox.providers.kubernetes.platform import KubernetesPlatform

        return KubernetesPlatform(instance)
    from inferencebox.providers.local.platform import LocalPlatform

    return LocalPlatform(instance)


def close_platform(instance: str, *, keep_logs: bool = False) -> None:
    """Take the platform of this name down, whatever state it is in."""
    from inferencebox.paths import state_dir

    if (state_dir(instance) / KIND_MARK).exists():
        from inferencebox.providers.kind import up as kind

        kind.take_down(instance, keep_logs=keep_logs)
    else:
        from inferencebox.providers.local import up

        up.take_down(instance, keep_logs=keep_logs)
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
