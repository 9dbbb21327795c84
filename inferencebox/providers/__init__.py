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


def open_platform(
    provider: str,
    instance: str,
    release: str,
    options: "PlatformOptions",
    progress: "Progress | None" = None,
    listener: "Listener | None" = None,
) -> "Platform":
    """A platform that is up when this returns: the one of this name if it is up already, else a new one."""
    _require_local(provider)
    from inferencebox.programs.progress import Silent
    from inferencebox.providers.local import up
    from inferencebox.release import Release

    return up.bring_up(instance, Release.load(release), options, progress or Silent(), listener or (lambda *_: None))


def attach(instance: str) -> "Platform":
    """The platform of this name, which must be up."""
    from inferencebox.providers.local.platform import LocalPlatform

    return LocalPlatform(instance)


def close_platform(instance: str, *, keep_logs: bool = False) -> None:
    """Take the platform of this name down, whatever state it is in."""
    from inferencebox.paths import state_dir
    from inferencebox.providers.local import up

    up.take_down(instance, keep_logs=keep_logs)
    with contextlib.suppress(OSError):  # logs are left in it
        state_dir(instance).rmdir()


def instances() -> list[str]:
    """The names of all platforms on this machine: running ones, and what is left of others."""
    from inferencebox.paths import state_dir

    root = state_dir("any").parent
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []


def _require_local(provider: str) -> None:
    if provider not in PROVIDERS:
        raise SetupProblem(f"there is no provider {provider!r}", f"choose one of {', '.join(PROVIDERS)}")
    if provider != "local":
        raise SetupProblem(f"provider {provider!r} is not built yet", "use --provider local")
