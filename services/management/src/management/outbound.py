"""Test calls that people ask for, to where they may go: the gateway, public addresses, networks set free for it.

An address is judged after its name was resolved and is then dialled itself, so that no second answer of a name server
can lead elsewhere. Redirects are not followed.
"""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from management.errors import ApiError
from management.schemas import ConnectionSettings
from management.settings import Settings

SECONDS = 20.0
REPLY_LIMIT = 1024 * 1024
PUBLIC_PORTS = (80, 443)
UNFIT_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any
    milliseconds: float
    url: str


class Outbound:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        gateway = urlsplit(settings.gateway_url)
        self._gateway_host = gateway.hostname or ""
        self._gateway_port = gateway.port or (443 if gateway.scheme == "https" else 80)
        self._gateway_scheme = gateway.scheme
        self._http = httpx.AsyncClient(trust_env=False, timeout=SECONDS, follow_redirects=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def through_gateway(self, host: str, path: str, headers: Mapping[str, str], body: Any) -> Reply:
        """A POST to tier 1 under a public host's name."""
        addresses = await _resolved(self._gateway_host)
        if not addresses:
            raise ApiError(502, "the gateway's name is not known", self._gateway_host)
        return await self._send(self._gateway_scheme, addresses[0], self._gateway_port, host, path, headers, body)

    async def custom(self, wanted: ConnectionSettings, path: str, headers: Mapping[str, str], body: Any) -> Reply:
        """A POST where the caller says.

        Args:
            headers: added if, and only if, it is the gateway that is asked: they may hold the caller's token.

        Raises:
            ApiError: 400 the destination can't be one; 403 it may not be asked; 502 it gave no reply.
        """
        host = (wanted.host or "").strip().lower()
        if not host or any(letter in host for letter in "/\\@?# %\t"):
            raise ApiError(400, "invalid connection settings", ["host: a name or an address"])
        target = wanted.path or path
        if not target.startswith("/") or any(ord(letter) < 33 or ord(letter) > 126 for letter in target):
            raise ApiError(400, "invalid connection settings", ["path: begins with / and is plain"])
        port = wanted.port or (443 if wanted.protocol == "https" else 80)
        addresses = _overridden(wanted, host, port) or await _resolved(host)
        if not addresses:
            raise ApiError(400, "invalid connection settings", ["host: no name server knows it"])
        gateways = await _resolved(self._gateway_host)
        for address in addresses:
            self._judge(address, port, gateways)
        at_gateway = addresses[0] in gateways and port in (80, 443, self._gateway_port)
        sent = {**(headers if at_gateway else {}), **_fit(wanted.headers)}
        return await self._send(wanted.protocol, addresses[0], port, host, target, sent, body)

    def _judge(self, address: Address, port: int, gateways: Sequence[Address]) -> None:
        if address in gateways and port in (80, 443, self._gateway_port):
            return
        if any(address in network for network in self._settings.test_networks if network.version == address.version):
            return
        if address.is_global and not address.is_multicast and port in PUBLIC_PORTS:
            return
        told = "test calls go to the gateway and to public addresses on ports 80 and 443"
        raise ApiError(403, "this destination may not be asked", told)

    async def _send(
        self, scheme: str, address: Address, port: int, host: str, path: str, headers: Mapping[str, str], body: Any
    ) -> Reply:
        literal = f"[{address}]" if address.version == 6 else str(address)
        usual = port == (443 if scheme == "https" else 80)
        named = host if usual else f"{host}:{port}"
        sent = {"host": named, "content-type": "application/json", "accept": "application/json", **headers}
        started = time.perf_counter()
        try:
            request = self._http.build_request(
                "POST",
                f"{scheme}://{literal}:{port}",
                headers=sent,
                content=json.dumps(body).encode(),
                extensions={"sni_hostname": host, "target": path.encode()},
            )
            reply = await self._http.send(request, stream=True)
            try:
                content = await _read(reply)
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as problem:
            reason = str(problem) or type(problem).__name__
            raise ApiError(502, "the destination gave no reply", reason[:200]) from None
        spent = round((time.perf_counter() - started) * 1000, 1)
        shown = {name: value for name, value in reply.headers.items() if name.lower() != "set-cookie"}
        return Reply(reply.status_code, shown, _parsed(content), spent, f"{scheme}://{named}{path}")


def _fit(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        plain = name and all((letter.isalnum() and letter.isascii()) or letter in "-_" for letter in name)
        if not plain or name.lower() in UNFIT_HEADERS or any(not 32 <= ord(letter) < 127 for letter in value):
            raise ApiError(400, "invalid connection settings", [f"headers: {name[:50]!r} can't be set"])
    return dict(headers)


def _overridden(wanted: ConnectionSettings, host: str, port: int) -> list[Address]:
    for each in wanted.dns_resolve:
        if each.host.lower() == host and each.port in (None, port):
            try:
                return [_plain(ipaddress.ip_address(each.address))]
            except ValueError:
                raise ApiError(400, "invalid connection settings", ["dnsResolve: address is no IP address"]) from None
    return []


async def _resolved(host: str) -> list[Address]:
    """The addresses of a host; none if its name is not known."""
    try:
        return [_plain(ipaddress.ip_address(host.strip("[]")))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [_plain(ipaddress.ip_address(entry[4][0])) for entry in found]


def _plain(address: Address) -> Address:
    """An IPv4 address in IPv6's clothes is judged as what it is."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return inner or address


async def _read(reply: httpx.Response) -> bytes:
    content = bytearray()
    async for part in reply.aiter_bytes():
        content += part
        if len(content) > REPLY_LIMIT:
            raise ValueError(f"the reply is longer than {REPLY_LIMIT} bytes")
    return bytes(content)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
