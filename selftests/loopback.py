"""Small servers on the loopback for the selftests: they answer with prepared bytes and keep what they were sent."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from inferencebox.platform import Endpoint

Answer = Callable[[bytes], bytes | None]
"""From the raw request to the raw reply; None drops the connection."""


TLS_HELLO = b"\x16"


class Server:
    def __init__(self, answer: Answer, context: ssl.SSLContext | None, keep_alive: bool) -> None:
        self.answer = answer
        self.keep_alive = keep_alive
        self.context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("https" if self.context else "http", "127.0.0.1", self.port)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._accepted.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        with contextlib.suppress(OSError), connection:
            stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
            while (request := read_request(stream)) and (reply := self._reply(request)):
                stream.sendall(reply)
                if not self.keep_alive:
                    break
        with self._lock:
            self.open_now -= 1

    def _reply(self, request: bytes) -> bytes | None:
        with self._lock:
            self.requests.append(request)
        return self.answer(request)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(2)
        for connection in self._accepted:
            with contextlib.suppress(OSError):
                connection.close()


def read_request(stream: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(65536)
        if not piece:
            return b""
        data += piece
        if data.startswith(TLS_HELLO):
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    while len(body) < int(fields.get(b"content-length", 0)):
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def serving(answer: Answer | bytes, context: ssl.SSLContext | None = None, keep_alive: bool = True) -> Iterator[Server]:
    prepared = answer if callable(answer) else lambda request: answer
    server = Server(prepared, context, keep_alive)
    try:
        yield server
    finally:
        server.close()


def closed_port() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Endpoint("http", "127.0.0.1", int(server.getsockname()[1]))
