"""When a break, or its healing, has arrived where it counts: at the proxies, or at the limiter."""

import json
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from inferencebox.platform import Platform

from .means import means_of

QUIET_SECONDS = 0.5
EVERY_SECONDS = 0.15
LIMIT_SECONDS = 45.0


def tier_1(platform: Platform) -> dict[str, str]:
    """Versions of what the tier-1 Envoy was told."""
    text = means_of(platform).tier_1("/stats?filter=version$")
    pairs = (line.rpartition(": ") for line in text.splitlines())
    return {name: value for name, _, value in pairs if not name.startswith("server.")}


def limiter(platform: Platform) -> dict[str, str]:
    """The limits that the rate limit service enforces. Tier 1's Envoy is not told how high they are."""
    lines = means_of(platform).limiter("/rlconfig").splitlines()
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def mesh(platform: Platform) -> dict[str, str]:
    """Versions of what the mesh's proxies were told; one that has not acknowledged the newest has version ``late``."""
    versions = {}
    for proxy in json.loads(means_of(platform).istiod("/debug/syncz") or "[]") or []:
        for kind, state in (proxy.get("resources") or {}).items():
            sent, acknowledged = state.get("sent"), state.get("acked")
            versions[f"{proxy['proxy']} {kind.rpartition('.')[2]}"] = str(sent) if sent == acknowledged else "late"
    return versions


VIEWS: Mapping[str, Callable[[Platform], dict[str, str]]] = MappingProxyType(
    {"tier-1": tier_1, "limiter": limiter, "mesh": mesh}
)


class Settling:
    """Looks before a change, so that it can tell when the change is everywhere.

    Args:
        views: names of `VIEWS`; a change must be seen in each.
    """

    def __init__(self, platform: Platform, views: tuple[str, ...]) -> None:
        self._platform, self._names = platform, views
        self._before = self._seen()

    def wait(self, limit: float = LIMIT_SECONDS) -> bool:
        """Until every view differs from before and then stays as it is. Whether it came to that."""
        deadline = time.monotonic() + limit
        last, since = self._before, time.monotonic()
        while time.monotonic() < deadline:
            now = self._seen()
            if now != last:
                last, since = now, time.monotonic()
            changed = all(now[name] != self._before[name] for name in self._names)
            late = any("late" in view.values() for view in now.values())
            if changed and not late and time.monotonic() - since >= QUIET_SECONDS:
                return True
            time.sleep(EVERY_SECONDS)
        return not self._names

    def _seen(self) -> dict[str, dict[str, str]]:
        return {name: VIEWS[name](self._platform) for name in self._names}
