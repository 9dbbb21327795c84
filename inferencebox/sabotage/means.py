"""What sabotage needs of a provider beyond the handle: to get inside parts, to see what proxies were told."""

from collections.abc import Callable, Mapping
from typing import Protocol

from inferencebox.platform import Platform

from .effects import NoEffect
from .remembered import Memory

Undo = Callable[[], None]


def replaced(content: str, replace: Mapping[str, str], name: str) -> str:
    """A file's content with texts replaced by others.

    Raises:
        NoEffect: a text is not there.
    """
    for text, other in replace.items():
        if text not in content:
            raise NoEffect(f"{name} has no {text!r} to replace: bring the sabotage catalogue up to date")
        content = content.replace(text, other)
    return content


class Means(Protocol):
    """Each way of breaking gives what undoes it.

    Raises:
        NoEffect: this provider has nothing that could be broken so.
    """

    def with_settings(self, components: str, settings: Mapping[str, str], memory: Memory) -> Undo:
        """Restart components (names may end in `*`) with other environment variables."""

    def freeze(self, component: str) -> Undo:
        """Let a component do nothing, while what it steers goes on."""

    def forgetful(self, component: str, folder: str) -> Undo:
        """Whenever the component starts it finds its folder empty."""

    def rewritten(self, name: str, replace: Mapping[str, str], component: str, anew: bool = False) -> Undo:
        """Replace text in a component's file (named as in `local`'s state folder), and have it read that.

        Args:
            anew: whether the component has to be started again for that.
        """

    def tier_1(self, path: str) -> str:
        """What tier 1's Envoy says at a path of its administration interface; nothing if it cannot be asked."""

    def limiter(self, path: str) -> str:
        """What the rate limit service says at a path of its debugging port; nothing if it cannot be asked."""

    def istiod(self, path: str) -> str:
        """What istiod says to its own machine at a path of its debugging port."""


def means_of(platform: Platform) -> Means:
    """How to get inside this platform."""
    from inferencebox.providers.local.platform import LocalPlatform

    if isinstance(platform, LocalPlatform):
        from .local import LocalMeans

        return LocalMeans(platform)
    from inferencebox.providers.kubernetes.platform import KubernetesPlatform

    from .kubernetes import KubernetesMeans

    assert isinstance(platform, KubernetesPlatform)
    return KubernetesMeans(platform)
