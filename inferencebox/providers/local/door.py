"""The door into the box: connections are made by a dialer inside it.

Runs outside the box (``python -m inferencebox.providers.local.door STATE_DIR``) for as long as the box lives.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from inferencebox.providers import doors
from inferencebox.providers.connections import Streams, open_connection

from .box import Box, find, project_python, sockets_dir


class Door(doors.Door):
    """A client of the door of the box whose state this is."""

    def __init__(self, state: Path) -> None:
        command = [str(project_python()), "-m", __name__, str(state)]
        super().__init__(_socket(state), command, state / "logs" / "door.log")


class Doorkeeper(doors.Doorkeeper):
    """The door process: its listeners, and the dialer inside the box that makes its connections."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = box.enter([str(project_python()), "-m", "inferencebox.providers.local.dialer", str(theirs.fileno())])
        self._dialer_process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._dialer = ours

    async def connect(self, address: str, port: int, pod: str) -> Streams:
        self._dialer.send(json.dumps({"address": address, "port": port, "pod": pod}).encode())
        answer, handles, _, _ = socket.recv_fds(self._dialer, 4096, 1)
        if not handles:
            raise OSError(answer.decode())
        connection = socket.socket(fileno=handles[0])
        await _connected(connection)
        return await open_connection(sock=connection)


async def _connected(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(connection, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(connection)
    problem = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if problem:
        connection.close()
        raise OSError(problem, os.strerror(problem))


async def keep(state: Path, owner: int | None) -> None:
    """Keep the door open until the box ends; end the box when its owner does."""
    box = find(state)
    if box is None:
        raise SystemExit("there is no box to lead into")
    server = await Doorkeeper(box).serve(_socket(state))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(os.pidfd_open(box.pid), ended.set)
    if owner is not None:
        loop.add_reader(os.pidfd_open(owner), box.kill)
    async with server:
        await ended.wait()


def _socket(state: Path) -> Path:
    return sockets_dir(state) / "door.sock"


def main() -> None:
    state, *owner = sys.argv[1:]
    asyncio.run(keep(Path(state), int(owner[0]) if owner else None))


if __name__ == "__main__":
    main()
