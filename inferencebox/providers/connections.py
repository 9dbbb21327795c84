"""Leads connections from one end to the other: what the doors have in common with the relay inside a cluster.

Needs nothing but Python's own library, for the relay takes it along (`kubernetes.objects.beside`).
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Coroutine
from typing import Any

CHUNK = 1 << 16
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_STARTED: set[asyncio.Task[None]] = set()


def start(work: Coroutine[Any, Any, None]) -> None:
    """Have something done beside the rest; asyncio itself lets go of what only waits for a reply."""
    task = asyncio.create_task(work)
    _STARTED.add(task)
    task.add_done_callback(_STARTED.discard)


class Hearing(asyncio.StreamReader):
    """Hears out who breaks off. What was said before is read first, and is then the end; else it is said that it broke.

    Args:
        broke: how the connection ended, if not in good order.
    """

    broke: Exception | None = None

    def set_exception(self, exc: Exception) -> None:
        self.broke = exc
        self.feed_eof()

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        if not data and self.broke:
            raise self.broke
        self.broke = None
        return data


class _LastWords(asyncio.StreamReaderProtocol):
    """A connection of which what was said before it was reset is heard.

    Who refuses a request early (a gateway: 401, 429, 503) replies, closes, and resets what still comes of the request.
    A transport that fails to write forgets what there is to read.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ConnectionError):
            with contextlib.suppress(OSError):
                while data := os.read(self._socket.fileno(), CHUNK):
                    self.data_received(data)
        super().connection_lost(exc)


async def open_connection(**where: Any) -> tuple[Hearing, asyncio.StreamWriter]:
    """A connection over which a reply is read also where the rest of the request could not be written.

    Args:
        where: `host` and `port`, or `sock`, as asyncio's `create_connection` takes them.
    """
    loop = asyncio.get_running_loop()
    reader = Hearing(limit=CHUNK, loop=loop)
    transport, protocol = await loop.create_connection(lambda: _LastWords(reader, loop=loop), **where)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def carry(one: Streams, other: Streams) -> None:
    """Bytes both ways, until both ends have ended; then both connections are closed."""
    try:
        await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))
    finally:
        other[1].close()
        one[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a connection: an end is passed on as an end, a reset as a reset."""
    writer.transport.set_write_buffer_limits(high=0)  # each piece is out before the next is read: a reset forgets none
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as one ends that is refused."""
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
