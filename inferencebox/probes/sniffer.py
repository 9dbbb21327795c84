"""Looks for texts in packets: a program of its own that runs inside the platform's network, with Python alone.

``sniffer.py capture '{"id": ..., "seconds": ..., "needles": [...]}'`` reads every frame of every interface (AF_PACKET)
until told to stop or the time is over, and prints what it saw as JSON. ``sniffer.py tell ID ready|stop`` talks to it
over an abstract Unix socket, which belongs to the network namespace as the packets do.
"""

import json
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator

ALL_PROTOCOLS = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
DRAIN_SECONDS = 2.0
BUFFER = 64 * 1024 * 1024
TCP, UDP = 6, 17


def flow_of(packet: bytes) -> tuple[str, bytes] | None:
    """(`source:port>target:port`, payload) of a TCP or UDP packet over IPv4 or IPv6 without extension headers."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start, protocol, family, addresses = (packet[0] & 15) * 4, packet[9], socket.AF_INET, packet[12:20]
    elif version == 6 and len(packet) >= 40:
        start, protocol, family, addresses = 40, packet[6], socket.AF_INET6, packet[8:40]
    else:
        return None
    if protocol not in (TCP, UDP) or len(packet) < start + 8 + 12 * (protocol == TCP):
        return None
    half = len(addresses) // 2
    source, target = (socket.inet_ntop(family, part) for part in (addresses[:half], addresses[half:]))
    ports = struct.unpack_from("!HH", packet, start)
    payload = start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8)
    return f"{source}:{ports[0]}>{target}:{ports[1]}", packet[payload:]


class Finder:
    """Counts frames by flow and finds needles, also those that lie across two packets of a flow on one interface."""

    def __init__(self, needles: list[bytes]) -> None:
        self.needles = needles
        self.keep = max([len(needle) for needle in needles], default=1) - 1
        self.tails: dict[tuple[str, str], bytes] = {}
        self.frames: Counter[str] = Counter()
        self.found: dict[bytes, set[str]] = {needle: set() for needle in needles}

    def add(self, interface: str, packet: bytes) -> None:
        parsed = flow_of(packet)
        if parsed is None:
            return
        flow, payload = parsed
        self.frames[flow] += 1
        if not payload:
            return
        text = self.tails.get((interface, flow), b"") + payload
        for needle in self.needles:
            if needle in text:
                self.found[needle].add(flow)
        self.tails[interface, flow] = text[-self.keep :] if self.keep else b""


def _packets(raw: socket.socket, control: socket.socket, until: float) -> Iterator[tuple[str, bytes]]:
    """Frames until the time is over; or, once somebody says stop, until those that have come are read."""
    stopping = False
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([raw, control], [], [], 0 if stopping else left)
        if control in ready and _answer(control) == b"stop":
            stopping, until = True, time.monotonic() + DRAIN_SECONDS
        if raw in ready:
            packet, address = raw.recvfrom(1 << 18)
            yield address[0], packet
        elif stopping:
            return


def _answer(control: socket.socket) -> bytes:
    connection, _ = control.accept()
    with connection:
        connection.settimeout(2)
        word = connection.recv(16)
        connection.sendall(b"ok")
    return word


def _address(name: str) -> str:
    return f"\0inferencebox-capture-{name}"


def capture(name: str, seconds: float, needles: list[str]) -> dict[str, object]:
    finder = Finder([needle.encode() for needle in needles])
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS)) as raw:
        for option in (socket.SO_RCVBUF, SO_RCVBUFFORCE):
            try:
                raw.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            except PermissionError:
                break
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(_address(name))
            control.listen(4)
            for interface, packet in _packets(raw, control, time.monotonic() + seconds):
                finder.add(interface, packet)
        seen, dropped = struct.unpack("II", raw.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    found = {needle.decode(): sorted(flows) for needle, flows in finder.found.items()}
    return {"packets": seen, "dropped": dropped, "flows": dict(finder.frames), "found": found}


def tell(name: str, word: str, patience: float = 10.0) -> None:
    """Say a word to a running capture, waiting until it is there."""
    until = time.monotonic() + patience
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(patience)
                connection.connect(_address(name))
                connection.sendall(word.encode())
                connection.recv(2)
                return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def main(argv: list[str]) -> None:
    if argv[0] == "tell":
        tell(argv[1], argv[2])
    else:
        wish = json.loads(argv[1])
        print(json.dumps(capture(wish["id"], wish["seconds"], wish["needles"])))


if __name__ == "__main__":
    main(sys.argv[1:])
