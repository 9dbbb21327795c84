"""Runs in the cluster, in the pod beside the workloads: connects where it is told to, from the node's network.

Takes connections on a loopback port: a first line ``ADDRESS PORT``, answered by an empty line once connected; then
bytes both ways. A connection that cannot be made is ended. Needs nothing but Python's own library.
"""

import asyncio
import sys

from inferencebox.providers.connections import carry, open_connection, start

PORT = 9998


def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead a connection, until it ends."""
    start(lead(reader, writer))


async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Make the connection that the first line asks for, and carry bytes."""
    try:
        address, port = (await reader.readline()).decode().split()
        far = await open_connection(host=address, port=int(port))
    except (OSError, ValueError):
        writer.transport.abort()
        return
    writer.write(b"\n")
    await carry((reader, writer), far)


async def main(port: int) -> None:
    """Serve until ended."""
    async with await asyncio.start_server(take, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT))
