"""Connections into pods through the API server, as ``kubectl port-forward`` makes them.

One WebSocket a connection (protocol ``v4.channel.k8s.io``): channel 0 carries the bytes, channel 1 what went wrong; the
first message of each is the port's number (Kubernetes `pkg/kubelet/cri/streaming/portforward/websocket.go`).
"""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubernetes import client, config
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from inferencebox.providers.connections import CHUNK, Hearing, Streams, open_connection, start

PROTOCOL = Subprotocol("v4.channel.k8s.io")
DATA, ERROR = 0, 1


@dataclass(frozen=True)
class ApiServer:
    """How to reach an API server.

    Args:
        url: without a slash at its end.
        tls: whom to trust and who we are.
        headers: more of who we are.
    """

    url: str
    tls: ssl.SSLContext
    headers: dict[str, str]

    @classmethod
    def of(cls, kubeconfig: Path) -> "ApiServer":
        settings: Any = client.Configuration()
        config.load_kube_config(str(kubeconfig), None, settings, persist_config=False)  # type: ignore[no-untyped-call]
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if not settings.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if settings.cert_file:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
        headers = {
            each["key"]: each["value"]
            for each in settings.auth_settings().values()
            if each["in"] == "header" and each["value"]
        }
        return cls(settings.host.rstrip("/"), tls, headers)

    async def forward(self, namespace: str, pod: str, port: int) -> Streams:
        """A connection to a port of a pod, from within its network.

        Raises:
            OSError: there is no such pod, or nobody listens there.
        """
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/portforward?ports={port}"
        try:
            remote = await connect(
                f"{self.url.replace('https', 'wss', 1)}{path}",
                ssl=self.tls,
                additional_headers=self.headers,
                subprotocols=[PROTOCOL],
                max_size=None,
                compression=None,
                ping_interval=None,
                open_timeout=10,
                proxy=None,
            )
        except (WebSocketException, TimeoutError) as problem:
            raise OSError(f"no way to {namespace}/{pod}: {problem}") from None
        ours, theirs = socket.socketpair()
        outer = await open_connection(sock=ours)
        start(_pump(remote, await asyncio.open_connection(sock=theirs, limit=CHUNK), outer[0]))
        return outer


async def _pump(remote: ClientConnection, inner: Streams, heard: Hearing) -> None:
    """Carry bytes both ways until the connection ends; all that has come by then is still handed on.

    Args:
        inner: our end of the pair whose other end is the client's.
        heard: what the client reads from.
    """
    reader, writer = inner
    sending = asyncio.create_task(_send(remote, reader))
    try:
        await _receive(remote, writer)
    except (WebSocketException, OSError) as problem:
        heard.broke = ConnectionResetError(str(problem))
    finally:
        sending.cancel()
        writer.close()
        with contextlib.suppress(Exception):
            await remote.close()


async def _receive(remote: ClientConnection, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes, to its end.

    Raises:
        OSError: the pod's end says that something went wrong, or the client is gone.
        WebSocketException: the connection to the API server broke.
    """
    greeted: set[int] = set()
    async for message in remote:
        if not isinstance(message, bytes) or not message:
            continue
        channel, data = message[0], message[1:]
        if channel not in greeted:  # the port's number
            greeted.add(channel)
        elif channel == ERROR and data:
            raise ConnectionResetError(data.decode(errors="replace"))
        elif channel == DATA:
            writer.write(data)
            await writer.drain()


async def _send(remote: ClientConnection, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(WebSocketException, OSError):
        while data := await reader.read(CHUNK):
            await remote.send(bytes([DATA]) + data)
        await remote.close()
