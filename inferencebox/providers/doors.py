"""A door: a process that listens on free loopback ports and leads each connection to an address of a platform.

Commands come over a Unix socket, one JSON object a line: ``{"address", "port", "pod", "wish"}``, answered by
``{"port"}``. With ``pod`` the connection is made from within that pod's network, as ``kubectl port-forward`` does.
How a connection is made is each provider's (`Doorkeeper.connect`).
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll
from inferencebox.providers.connections import CHUNK, Streams, carry, reset, start

BACKLOG = 1024
START_SECONDS = 10.0
CONNECT_SECONDS = 10.0


class Door:
    """A client of a door process, which it starts when there is none.

    Args:
        path: its Unix socket.
        command: what starts it.
        log: where it says what it has to say.
    """

    def __init__(self, path: Path, command: Sequence[str], log: Path) -> None:
        self._socket, self._command, self._log = path, command, log

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
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            subprocess.Popen(
                [*self._command, *([str(owner)] if owner else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not poll(self._answers, START_SECONDS):
            raise SetupProblem("the door into the platform did not open", f"read {self._log}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0


class Doorkeeper(ABC):
    """The door process: its listeners."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, int, str], int] = {}
        self._servers: list[asyncio.Server] = []

    @abstractmethod
    async def connect(self, address: str, port: int, pod: str) -> Streams:
        """A connection to that address of the platform.

        Raises:
            OSError: nobody answers there.
        """

    async def serve(self, path: Path) -> asyncio.Server:
        """Take commands at this Unix socket."""
        path.unlink(missing_ok=True)
        return await asyncio.start_unix_server(self._command, path=str(path))

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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

            def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                start(self._lead(target, (reader, writer)))

            self._servers.append(await asyncio.start_server(lead, sock=listener, limit=CHUNK, backlog=BACKLOG))
        return self._ports[target]

    async def _lead(self, target: tuple[str, int, str], outer: Streams) -> None:
        try:
            inner = await asyncio.wait_for(self.connect(*target), CONNECT_SECONDS)
        except (OSError, TimeoutError) as problem:
            print(f"{target}: {type(problem).__name__} {problem}", file=sys.stderr, flush=True)  # the door's log
            reset(outer[1])
            return
        await carry(outer, inner)


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
