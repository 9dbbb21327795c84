"""The door leads connections: what was said on one is heard, however it ended."""

import asyncio
import gc
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


class Straight(doors.Doorkeeper):
    """Leads to addresses of this machine."""

    async def connect(self, address: str, port: int, pod: str) -> doors.Streams:
        return await doors.open_connection(host=address, port=port)


async def reply_to_one_who_waits() -> bytes:
    """What somebody hears who has said all that he has to say, the reply coming after memory was cleared up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = await Straight()._listen("127.0.0.1", server.getsockname()[1], "", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connection, _ = await asyncio.to_thread(server.accept)
        writer.write(b"request")
        writer.write_eof()
        while await asyncio.to_thread(connection.recv, 100):
            pass
        gc.collect()
        connection.sendall(b"reply")
        connection.close()
        heard = await reader.read()
        writer.close()
        return heard


def test_a_connection_on_which_a_reply_is_awaited_is_not_cleared_up() -> None:
    assert asyncio.run(reply_to_one_who_waits()) == b"reply"
