"""The door leads connections: what was said on one is heard, however it ended."""

import asyncio
import socket

import pytest

from inferencebox.providers import doors

REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


async def asked(reply: bytes) -> bytes:
    """What is heard of somebody who replies after the head of a request, if at all, and takes none of its body."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = await doors.open_connection(host="127.0.0.1", port=server.getsockname()[1])
        connection, _ = server.accept()
        writer.write(b"head")
        connection.recv(1)
        connection.sendall(reply)
        connection.close()  # with something unread, so that it is reset
        writer.write(b"body")
        try:
            return await reader.read()
        finally:
            writer.transport.abort()


def test_an_early_refusal_is_heard_although_the_request_could_not_be_sent_whole() -> None:
    assert asyncio.run(asked(REFUSAL)) == REFUSAL


def test_who_says_nothing_before_the_reset_has_reset() -> None:
    with pytest.raises(ConnectionError):
        asyncio.run(asked(b""))
