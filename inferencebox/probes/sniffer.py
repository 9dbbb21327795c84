"""Looks for texts in packets: a program of its own that runs inside the platform's network, with Python alone.

Frames come through a ring of memory that the kernel fills (linux/if_packet.h, TPACKET_V3): it holds seconds of heavy
traffic. The buffer of a plain socket is not ours to enlarge inside a user namespace, and loses frames as soon as other
scenarios are busy.

``sniffer.py capture '{"id": ..., "seconds": ..., "needles": [...]}'`` reads every frame of every interface (AF_PACKET)
until told to stop or the time is over, and prints what it saw as JSON. ``sniffer.py tell ID ready|stop`` talks to it
over an abstract Unix socket, which belongs to the network namespace as the packets do.
"""

import json
import mmap
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator

ALL_PROTOCOLS = 0x0003
SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 263, 5, 6, 10
TPACKET_V3 = 2
BLOCK, BLOCKS, SLOT = 1 << 20, 64, 1 << 11
RETIRE_MS = 100
"""After so long a block that has a frame is handed over, full or not. As long, for each block, may the machine be too
busy to let this program run: with all blocks handed over frames are lost."""
HANDED_OVER = 1
DRAIN_SECONDS = 30.0
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


class Ring:
    """The frames that a packet socket receives, from now on: `take` gives those that have come."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("I", TPACKET_V3))
        wish = struct.pack("7I", BLOCK, BLOCKS, SLOT, BLOCK // SLOT * BLOCKS, RETIRE_MS, 0, 0)
        raw.setsockopt(SOL_PACKET, PACKET_RX_RING, wish)
        self._memory = mmap.mmap(raw.fileno(), BLOCK * BLOCKS)
        self._next = 0

    def take(self) -> Iterator[tuple[float, int, bytes]]:
        """(time of day, number of the interface, packet) of every frame that has been handed over and not taken."""
        while True:
            block = self._next * BLOCK
            status, frames, offset = struct.unpack_from("3I", self._memory, block + 8)
            if not status & HANDED_OVER:
                return
            for _ in range(frames):
                frame = block + offset
                step, second, nanosecond, length = struct.unpack_from("4I", self._memory, frame)
                (start,) = struct.unpack_from("H", self._memory, frame + 26)
                (interface,) = struct.unpack_from("i", self._memory, frame + 52)
                packet = self._memory[frame + start : frame + start + length]
                yield second + nanosecond / 1e9, interface, packet
                offset += step
            struct.pack_into("I", self._memory, block + 8, 0)
            self._next = (self._next + 1) % BLOCKS


def _packets(ring: Ring, raw: socket.socket, control: socket.socket, until: float) -> Iterator[tuple[str, bytes]]:
    """Frames until the time is over; or, once somebody says stop, until those that came before are read."""
    names = dict(socket.if_nameindex())
    stopped: float | None = None
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([raw, control], [], [], 5 * RETIRE_MS / 1000 if stopped else left)
        if control in ready and _answer(control) == b"stop":
            stopped, until = time.time(), time.monotonic() + DRAIN_SECONDS
        for at, interface, packet in ring.take():
            if stopped and at > stopped:
                return
            yield names.get(interface, str(interface)), packet
        if stopped and not ready:
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
        ring = Ring(raw)
        _statistics(raw)  # asking begins the count anew: what came before there was a ring does not matter
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(_address(name))
            control.listen(4)
            for interface, packet in _packets(ring, raw, control, time.monotonic() + seconds):
                finder.add(interface, packet)
        seen, dropped = _statistics(raw)
    found = {needle.decode(): sorted(flows) for needle, flows in finder.found.items()}
    return {"packets": seen, "dropped": dropped, "flows": dict(finder.frames), "found": found}


def _statistics(raw: socket.socket) -> tuple[int, int]:
    """Frames since the last time, and how many of them were lost."""
    seen, dropped, _ = struct.unpack("3I", raw.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
    return seen, dropped


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
            time.sleep(0.02)  # nothing tells that the capture listens; `poll` is not there, where this runs


def main(argv: list[str]) -> None:
    if argv[0] == "tell":
        tell(argv[1], argv[2])
    else:
        wish = json.loads(argv[1])
        print(json.dumps(capture(wish["id"], wish["seconds"], wish["needles"])))


if __name__ == "__main__":
    main(sys.argv[1:])
