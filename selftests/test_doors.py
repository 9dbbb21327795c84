"""The door leads connections: what was said on one is heard, however it ended."""

import asyncio
import contextlib
import gc
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferencebox.polling import poll
from inferencebox.providers import doors
from inferencebox.providers.connections import Streams, open_connection
from inferencebox.providers.kubernetes import objects

REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


async def asked(reply: bytes) -> bytes:
    """What is heard of somebody who replies after the head of a request, if at all, and takes none of its body."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = await open_connection(host="127.0.0.1", port=server.getsockname()[1])
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


async def read_of_a_reset_connection(after: bool) -> bytes:
    """What is read of somebody who replied and was reset, before (or after) which the reply was read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = await open_connection(host="127.0.0.1", port=server.getsockname()[1])
        connection, _ = server.accept()
        connection.sendall(REFUSAL)
        if after:
            assert await reader.read(100) == REFUSAL
        await asyncio.sleep(0.05)  # the loop hears the reply, though nobody reads it
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        await asyncio.sleep(0.05)
        try:
            return await reader.read()
        finally:
            writer.transport.abort()


def test_what_nobody_had_read_yet_when_the_connection_was_reset_is_heard() -> None:
    assert asyncio.run(read_of_a_reset_connection(after=False)) == REFUSAL


def test_of_whom_all_is_read_when_the_connection_is_reset_has_reset() -> None:
    with pytest.raises(ConnectionError):
        asyncio.run(read_of_a_reset_connection(after=True))


class Straight(doors.Doorkeeper):
    """Leads to addresses of this machine."""

    async def connect(self, address: str, port: int, pod: str) -> Streams:
        return await open_connection(host=address, port=port)


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


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[int]:
    """Port of a relay that runs as in its pod: of the files that it brings, with Python's own library alone."""
    config_map, pod = objects.beside("image")
    (container,), (volume,) = pod["spec"]["containers"], pod["spec"]["volumes"]
    for item in volume["configMap"]["items"]:
        (tmp_path / item["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item["path"]).write_text(config_map["data"][item["key"]])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, *words = container["command"]
    with subprocess.Popen([sys.executable, "-S", *words, str(port)], env={"PYTHONPATH": str(tmp_path)}) as running:
        try:
            assert poll(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20)
            yield port
        finally:
            running.terminate()


def refuse(server: socket.socket, reply: bytes) -> None:
    """Reply to the head of a request, if at all, and take none of its body."""
    connection, _ = server.accept()
    connection.recv(1)
    connection.sendall(reply)
    connection.close()


def led_to(port: int, address: tuple[str, int]) -> socket.socket:
    """A connection through the relay."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(f"{address[0]} {address[1]}\n".encode())
    return client


@pytest.mark.parametrize("reply", [REFUSAL, REFUSAL + bytes(20_000)])
def test_an_early_refusal_is_heard_through_the_relay(relay: int, reply: bytes) -> None:
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as server, led_to(relay, server.getsockname()) as client:
            threading.Thread(target=refuse, args=(server, reply)).start()
            assert client.recv(1) == b"\n"
            with contextlib.suppress(OSError):
                while True:  # no end of the request
                    client.sendall(bytes(1 << 16))
            assert client.makefile("rb").read(len(reply)) == reply


def test_an_address_at_which_nobody_answers_is_told_by_the_relay(relay: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()
    with led_to(relay, gone) as client:
        assert client.recv(1) == b""
