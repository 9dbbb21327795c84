"""What the kubelet does when the container of the tier-1 Envoy ends: it runs again.

Envoy Gateway with host infrastructure starts Envoy once and only logs its end (1.9.1, infrastructure/host). Here its
own process is ended then, so that the supervisor starts both anew; whoever looks sees that a part was replaced.
"""

import contextlib
import os
import select
import signal
import time
from pathlib import Path

LOOK_SECONDS = 0.5


def keep_envoy_running(gateway: str = "envoy-gateway", proxy: str = "envoy") -> None:
    """Never returns: waits for the end of the proxy that the gateway's process started, and ends that process too."""
    while True:
        found = _child_of(gateway, proxy)
        if found is None:
            time.sleep(LOOK_SECONDS)  # the proxy may not have been started yet: nobody tells
            continue
        child, parent = found
        with contextlib.suppress(ProcessLookupError):
            _await_end(child)
            print(proxy, child, "has ended; ending", gateway, parent, flush=True)
            os.kill(parent, signal.SIGKILL)


def _child_of(gateway: str, proxy: str) -> tuple[int, int] | None:
    """The proxy's process and the gateway's, as this process namespace numbers them."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (entry := _stat(folder)) and entry[0] == proxy:
            parent = _stat(folder.parent / str(entry[1]))
            if parent and parent[0] == gateway:
                return int(folder.name), entry[1]
    return None


def _stat(folder: Path) -> tuple[str, int] | None:
    """Name and parent of a process that runs."""
    try:
        name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    state, parent = rest.split()[:2]
    return (name, int(parent)) if state not in "ZX" else None


def _await_end(process: int) -> None:
    handle = os.pidfd_open(process)
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)
