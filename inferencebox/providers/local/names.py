"""/etc/hosts of the box: the control plane's parts by their own addresses, every other Service by its cluster
address."""

import json
from pathlib import Path

from filelock import FileLock

from inferencebox.replacing import replace_file

from .addresses import NAMES
from .control_plane import Kubectl


def write(state: Path, kubectl: Kubectl | None = None) -> None:
    """Write the file; without ``kubectl`` (no API yet) only the fixed names."""
    with FileLock(state / "hosts.lock"):  # several test processes add workloads at the same time
        names = {"localhost": "127.0.0.1", **(_services(kubectl) if kubectl else {}), **NAMES}
        text = "".join(f"{address} {name}\n" for name, address in names.items())
        replace_file(state / "hosts", text)


def _services(kubectl: Kubectl) -> dict[str, str]:
    found: dict[str, str] = {}
    for service in json.loads(kubectl.run("get", "services", "--all-namespaces", "-o", "json"))["items"]:
        address = service["spec"].get("clusterIP", "None")
        if address not in ("None", ""):
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            found[f"{name}.{namespace}.svc.cluster.local"] = address
    return found
