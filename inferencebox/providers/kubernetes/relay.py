"""Runs in the cluster, in the pod beside the workloads: connects where it is told to, from the node's network.

Takes connections on a loopback port: a first line ``ADDRESS PORT``, answered by an empty line once connected; then
bytes both ways. A connection that cannot be made is ended. Needs nothing but Python's own library.
"""

import asyncio
import contextlib
import sys

PORT = 9998
_LED: set[asyncio.Task[None]] = set()
"""asyncio itself lets go of a connection on which both sides only wait for a reply."""


def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead a connection, until it ends."""
    led = asyncio.create_task(lead(reader, writer))
    _LED.add(led)
    led.add_done_callback(_LED.discard)


async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Make the connection that the first line asks for, and carry bytes."""
    with contextlib.suppress(OSError, ValueError):
        address, port = (await reader.readline()).decode().split()
        far_reader, far_writer = await asyncio.open_connection(address, int(port))
        writer.write(b"\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def main(port: int) -> None:
    """Serve until ended."""
    async with await asyncio.start_server(take, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT))
