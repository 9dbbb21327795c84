"""The door: listens on free loopback ports of the machine and leads each connection to an address inside the box.

Runs outside the box (``python -m inferencebox.providers.local.door STATE_DIR``) for as long as the box lives.
Commands come over
a Unix socket, one JSON object a line: ``{"address", "port", "pod", "wish"}``, answered by ``{"port"}``. With
``pod`` the
connection is made from within that pod's network, as ``kubectl port-forward`` does.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll

from .box import Box, find, project_python, sockets_dir

CHUNK = 1 << 16
BACKLOG = 1024
START_SECONDS = 10.0
CONNECT_SECONDS = 10.0


class Door:
    """A client of a running door."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._socket = sockets_dir(state) / "door.sock"

    def forward(self, address: str, port: int, pod: str = "", wish: int = 0) -> int:
        """A port of 127.0.0.1 that leads to ``address:port`` inside; ``wish`` is taken if it is free."""
        request = {"address": address, "port": port, "pod": pod, "wish": wish}
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_SECONDS)
                client.connect(str(self._socket))
                client.sendall(json.dumps(request).encode() + b"\n")
                reply = json.loads(client.makefile().readline())
        except (OSError, ValueError) as problem:
            raise SetupProblem(
                f"the way into the platform does not answer ({problem})", "run `ibox up` again"
            ) from None
        return int(reply["port"])

    def open(self, owner: int | None = None) -> None:
        """Start the door process unless one answers.

        Args:
            owner: process at whose end the whole platform is to be taken down.
        """
        if self._answers():
            return
        log = (self._state / "logs" / "door.log").open("ab")
        subprocess.Popen(
            [str(project_python()), "-m", __name__, str(self._state), *([str(owner)] if owner else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        if not poll(self._answers, START_SECONDS):
            raise SetupProblem("the door into the platform did not open", f"read {log.name}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0


class Doorkeeper:
    """The door process: its listeners, and the dialer inside the box that makes its connections."""

    def __init__(self, box: Box) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = box.enter([str(project_python()), "-m", "inferencebox.providers.local.dialer", str(theirs.fileno())])
        self._dialer_process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._dialer = ours
        self._ports: dict[tuple[str, int, str], int] = {}
        self._servers: list[asyncio.Server] = []

    async def command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while line := await reader.readline():
                wanted = json.loads(line)
                port = await self._listen(wanted["address"], wanted["port"], wanted["pod"], wanted["wish"])
                writer.write(json.dumps({"port": port}).encode() + b"\n")
                await writer.drain()

    async def _listen(self, address: str, port: int, pod: str, wish: int) -> int:
        target = (address, port, pod)
        if target not in self._ports:
            listener = _listener(wish)
            self._ports[target] = listener.getsockname()[1]

            async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._lead(target, reader, writer)

            self._servers.append(await asyncio.start_server(lead, sock=listener, limit=CHUNK, backlog=BACKLOG))
        return self._ports[target]

    async def _lead(
        self, target: tuple[str, int, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            inner_reader, inner_writer = await asyncio.wait_for(self._connect(*target), CONNECT_SECONDS)
        except (OSError, TimeoutError):
            _reset(writer)
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    async def _connect(self, address: str, port: int, pod: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._dialer.send(json.dumps({"address": address, "port": port, "pod": pod}).encode())
        answer, handles, _, _ = socket.recv_fds(self._dialer, 4096, 1)
        if not handles:
            raise OSError(answer.decode())
        connection = socket.socket(fileno=handles[0])
        await _connected(connection)
        return await asyncio.open_connection(sock=connection, limit=CHUNK)


def _listener(wish: int) -> socket.socket:
    for port in dict.fromkeys((wish, 0)):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            continue
        listener.listen(BACKLOG)
        return listener
    raise OSError("no free port")


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


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a connection: an end is passed on as an end, a reset as a reset."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def keep(state: Path, owner: int | None) -> None:
    """Keep the door open until the box ends; end the box when its owner does."""
    box = find(state)
    if box is None:
        raise SystemExit("there is no box to lead into")
    doorkeeper = Doorkeeper(box)
    path = sockets_dir(state) / "door.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(doorkeeper.command, path=str(path))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(os.pidfd_open(box.pid), ended.set)
    if owner is not None:
        loop.add_reader(os.pidfd_open(owner), box.kill)
    async with server:
        await ended.wait()


def main() -> None:
    state, *owner = sys.argv[1:]
    asyncio.run(keep(Path(state), int(owner[0]) if owner else None))


if __name__ == "__main__":
    main()
