"""The capture finds clear text, counts who talked to whom, and says so when it can't."""

import os
import socket
import subprocess
from collections.abc import Callable, Sequence

import pytest
from loopback import reply, serving

from inferencebox.errors import SetupProblem
from inferencebox.probes.http import Call
from inferencebox.probes.packets import Capture, Packets, without_loss
from inferencebox.probes.sniffer import Finder, flow_of


class Here:
    def run_beside(self, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30):  # type: ignore[no-untyped-def]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False)


def raw_sockets() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    except OSError:
        return False
    return True


def packet(payload: bytes, source: int = 1, target: int = 2) -> bytes:
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    head = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]) + addresses
    ports = source.to_bytes(2, "big") + target.to_bytes(2, "big")
    return head + ports + bytes(8) + bytes([0x50]) + bytes(7) + payload


@pytest.mark.skipif(not raw_sockets(), reason="raw sockets are not allowed here")
def test_clear_text_on_the_wire_is_found_and_its_flow_named() -> None:
    with serving(reply(200, b"canary-in-the-reply")) as server, Capture(Here(), "canary-in", "absent") as capture:  # type: ignore[arg-type]
        Call("GET", server.endpoint, "/", fresh=True)()
        here = f"127.0.0.1:{server.port}"
    seen = capture.observed
    assert seen is not None
    assert seen.between(here, "127.0.0.1") > 4
    assert [flow.startswith(here) for flow in seen.found_to("canary-in", "127.0.0.1")] == [True]
    assert seen.found["absent"] == []


def test_a_text_across_two_packets_is_found() -> None:
    finder = Finder([b"canary"])
    finder.add("eth0", packet(b"...can"))
    finder.add("eth0", packet(b"", 7, 8))
    finder.add("eth1", packet(b"ary"))
    assert finder.found[b"canary"] == set()
    finder.add("eth0", packet(b"ary..."))
    assert finder.found[b"canary"] == {"10.0.0.1:1>10.0.0.2:2"}
    assert finder.frames == {"10.0.0.1:1>10.0.0.2:2": 3, "10.0.0.1:7>10.0.0.2:8": 1}


@pytest.mark.parametrize("data", [b"", b"\x45", packet(b"")[:30], b"\x60" + bytes(39), os.urandom(0)])
def test_what_is_no_tcp_or_udp_is_passed_over(data: bytes) -> None:
    assert flow_of(data) is None


def test_ipv6_is_read() -> None:
    loopback = bytes(15) + b"\x01"
    head = b"\x60" + bytes(5) + bytes([17, 64]) + loopback + loopback
    datagram = head + (53).to_bytes(2, "big") + (99).to_bytes(2, "big") + bytes(4) + b"hello" + bytes(8)
    assert flow_of(datagram) == ("::1:53>::1:99", b"hello" + bytes(8))


def test_flows_between_two_addresses_are_told_apart() -> None:
    seen = Packets(9, 0, {"10.0.0.1:5>10.0.0.2:80": 3, "10.0.0.2:80>10.0.0.1:5": 2, "10.0.0.3:1>10.0.0.2:80": 4}, {})
    assert seen.between("10.0.0.1", "10.0.0.2:80") == 5
    assert seen.between("10.0.0.3", "10.0.0.2") == 4
    assert seen.between("10.0.0.1", "10.0.0.3") == 0


def test_a_network_that_forbids_it_is_a_problem_of_the_environment() -> None:
    class Forbidding:
        def run_beside(self, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30):  # type: ignore[no-untyped-def]
            return subprocess.CompletedProcess(argv, 1, b"", b"Traceback\nPermissionError: Operation not permitted")

    with pytest.raises(SetupProblem, match="cannot capture packets: PermissionError"), Capture(Forbidding()):  # type: ignore[arg-type]
        pass


def losing(*dropped: int) -> Callable[[], Packets]:
    captures = iter(dropped)
    return lambda: Packets(9, next(captures), {}, {})


def test_it_listens_again_until_nothing_was_lost() -> None:
    assert without_loss(losing(173, 2, 0, 5)).dropped == 0


def test_captures_that_all_lose_packets_are_a_problem_of_the_environment() -> None:
    with pytest.raises(SetupProblem, match=r"each of 4 captures lost packets \(173, 2, 9, 5\)"):
        without_loss(losing(173, 2, 9, 5, 0))
