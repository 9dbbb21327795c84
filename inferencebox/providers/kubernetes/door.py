"""The door into a cluster: connections through the API server into pods, or straight to a node's port.

Also follows the pods' logs, for as long as it lives. Run by module name, with the
state folder as its argument.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inferencebox import command_line
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers import doors
from inferencebox.providers.connections import Streams, open_connection
from inferencebox.providers.kubernetes.logs import Follower
from inferencebox.providers.kubernetes.node_logs import NodeLogs
from inferencebox.providers.kubernetes.objects import BESIDE, OURS, pod_behind
from inferencebox.providers.kubernetes.relay import PORT as RELAY_PORT
from inferencebox.providers.kubernetes.streams import ApiServer
from inferencebox.replacing import replace_file

DIRECT = "direct"
"""Instead of a pod: an address that this machine can reach by itself."""
NODE_LOGS = "node-logs.json"
SERVICE = "service:"
"""Before a `namespace/name`: any ready pod of that Service."""


class Door(doors.Door):
    """A client of the door of the platform whose state this is."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", __name__, str(state)]
        super().__init__(socket_path(state), command, state / "door.log")
        self.pid_file = state / "door.pid"

    def close(self) -> None:
        """End the door process, if there is one, and remove what it leaves outside the state folder."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.pid_file.read_text()), 15)
        self.pid_file.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)


class Doorkeeper(doors.Doorkeeper):
    """The door process.

    Args:
        kubeconfig: of the cluster.
    """

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__()
        self._server = ApiServer.of(kubeconfig)
        self._kube = Kube(kubeconfig)

    async def connect(self, address: str, port: int, pod: str) -> Streams:
        if pod == DIRECT:
            return await open_connection(host=address, port=port)
        if pod.startswith(SERVICE):
            namespace, name = pod.removeprefix(SERVICE).split("/")
            found = await asyncio.to_thread(pod_behind, self._kube, namespace, name, port)
            if found is None:
                raise OSError(f"no pod of {namespace}/{name} runs")
            return await self._server.forward(namespace, *found)
        if pod:
            namespace, name = pod.split("/")
            return await self._server.forward(namespace, name, port)
        return await self._through_relay(address, port)

    async def _through_relay(self, address: str, port: int) -> Streams:
        reader, writer = await self._server.forward(OURS, BESIDE, RELAY_PORT)
        writer.write(f"{address} {port}\n".encode())
        if await reader.readline() != b"\n":
            writer.transport.abort()
            raise OSError(f"{address}:{port} does not answer")
        return reader, writer


def socket_path(state: Path) -> Path:
    """Where the door listens: a short path, whatever the state folder's is (a Unix socket's is 107 bytes at most)."""
    name = hashlib.sha256(str(state).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"inferencebox-{os.getuid()}-{name}.sock"


async def keep(state: Path, owner: int | None) -> None:
    """Keep the door open until it is ended; take the platform down when its owner ends."""
    kubeconfig = state / "kubeconfig"
    server = await Doorkeeper(kubeconfig).serve(socket_path(state))
    (state / "door.pid").write_text(str(os.getpid()))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    if owner is not None:
        loop.add_reader(os.pidfd_open(owner), ended.set)
    following = asyncio.create_task(Follower(kubeconfig, state / "logs", node_logs_of(state)).follow())
    async with server:
        await ended.wait()
    following.cancel()
    subprocess.Popen(command_line.ibox("down", "--instance", state.name))


def tell_node_logs(state: Path, folders: Sequence[Path]) -> None:
    """Say, before there is a door, where the nodes' own log files are on this machine."""
    replace_file(state / NODE_LOGS, json.dumps([str(folder) for folder in folders]))


def node_logs_of(state: Path) -> NodeLogs | None:
    """The nodes' files, if every node's can be read by us."""
    try:
        folders = [Path(folder) for folder in json.loads((state / NODE_LOGS).read_text())]
    except FileNotFoundError:
        return None
    return NodeLogs(folders) if folders and all(os.access(folder, os.R_OK | os.X_OK) for folder in folders) else None


def main() -> None:
    state, *owner = sys.argv[1:]
    asyncio.run(keep(Path(state), int(owner[0]) if owner else None))


if __name__ == "__main__":
    main()
