"""Connections into pods, through an API server that is played here: what came before the connection broke is heard."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from inferencebox.providers.connections import Streams
from inferencebox.providers.kubernetes.streams import DATA, ERROR, PROTOCOL, ApiServer

REPLY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
PIECE = bytes(1 << 16)
AMOUNTS = pytest.mark.parametrize("pieces", range(5, 13))
"""About what the buffers on the way hold: with some of these, much waits in each when the connection breaks."""
Pod = Callable[[ServerConnection], Awaitable[None]]


async def greet(api: ServerConnection) -> None:
    for channel in (DATA, ERROR):
        await api.send(bytes([channel]) + (8080).to_bytes(2, "little"))


async def say(api: ServerConnection, channel: int, *pieces: bytes) -> None:
    for piece in pieces:
        await api.send(bytes([channel]) + piece)


async def breaks(api: ServerConnection) -> None:
    """No word of farewell."""
    while api.transport.get_write_buffer_size():
        await asyncio.sleep(0.01)
    api.transport.abort()


async def through(pod: Pod, client: Callable[[Streams], Awaitable[bytes]]) -> bytes:
    """What a client hears of what is at the other end."""

    async def connected(api: ServerConnection) -> None:
        await greet(api)
        await pod(api)

    async with serve(connected, "127.0.0.1", 0, subprotocols=[PROTOCOL]) as server:
        port = server.sockets[0].getsockname()[1]
        streams = await ApiServer(f"ws://127.0.0.1:{port}", None, {}).forward("tenant-a", "iris-1", 8080)  # type: ignore[arg-type]
        try:
            return await client(streams)
        finally:
            streams[1].transport.abort()


async def slow(streams: Streams) -> bytes:
    """Begins to read when all has come that there is room for, and reads to the end."""
    await asyncio.sleep(0.1)
    heard = b""
    while data := await streams[0].read(len(PIECE)):
        heard += data
        await asyncio.sleep(0.01)
    return heard


async def prompt(streams: Streams) -> bytes:
    return await streams[0].read(100) + await streams[0].read(100)


async def sending(streams: Streams) -> bytes:
    """Sends on until that is not possible any more, and only then reads."""
    with contextlib.suppress(ConnectionError):
        while True:
            streams[1].write(PIECE)
            await streams[1].drain()
    return await streams[0].read()


@AMOUNTS
def test_what_came_before_the_connection_broke_is_heard_by_a_slow_reader(pieces: int) -> None:
    async def pod(api: ServerConnection) -> None:
        await say(api, DATA, *[PIECE] * pieces)
        await breaks(api)

    assert len(asyncio.run(through(pod, slow))) == pieces * len(PIECE)


@AMOUNTS
def test_what_came_before_the_pods_end_told_of_a_fault_is_heard(pieces: int) -> None:
    async def pod(api: ServerConnection) -> None:
        await say(api, DATA, *[PIECE] * pieces)
        await say(api, ERROR, b"read: connection reset by peer")
        await api.wait_closed()

    assert len(asyncio.run(through(pod, slow))) == pieces * len(PIECE)


def test_an_early_refusal_is_heard_by_one_who_still_sends() -> None:
    async def pod(api: ServerConnection) -> None:
        await api.recv()
        await say(api, DATA, REPLY)
        await api.close()

    assert asyncio.run(through(pod, sending)) == REPLY


@pytest.mark.parametrize("said", [b"", REPLY])
def test_whom_nothing_more_is_heard_of_when_the_connection_breaks_has_reset(said: bytes) -> None:
    async def pod(api: ServerConnection) -> None:
        await say(api, DATA, *[said] * bool(said))
        await asyncio.sleep(0.2)
        await breaks(api)

    with pytest.raises(ConnectionError):
        asyncio.run(through(pod, prompt))


def test_where_nobody_listens_in_the_pod_the_connection_is_reset() -> None:
    async def pod(api: ServerConnection) -> None:
        await say(api, ERROR, b"dial tcp4 127.0.0.1:8080: connect: connection refused")
        await api.wait_closed()

    with pytest.raises(ConnectionError):
        asyncio.run(through(pod, prompt))


def test_an_end_is_an_end() -> None:
    async def pod(api: ServerConnection) -> None:
        await say(api, DATA, REPLY)
        await api.close()

    assert asyncio.run(through(pod, prompt)) == REPLY
