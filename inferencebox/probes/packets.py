"""What goes over the platform's wires in clear text: a packet capture between entering and leaving a block.

The capture runs beside the workloads (`Platform.run_beside`) as `sniffer.py`. On entering it is known to be listening;
on leaving it has read what was sent. That nothing was found proves something only together with `between`, which says
that traffic was seen at all, and with `dropped` at 0.
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Self

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Platform
from inferencebox.probes import sniffer

PROGRAM = Path(sniffer.__file__)
TRIES = 4
LAST_WORDS_SECONDS = 5.0
"""A capture that fails says why and ends; so long it may take."""


@dataclass(frozen=True)
class Packets:
    """What a capture saw. Flows are `source:port>target:port`; a packet counts once per interface it crosses."""

    packets: int
    dropped: int
    flows: Mapping[str, int]
    found: Mapping[str, Sequence[str]]
    """For each needle the flows in which it was."""

    def between(self, one: str, other: str) -> int:
        """Packets between two addresses, each `host` or `host:port`, in either direction."""
        return sum(count for flow, count in self.flows.items() if _joins(flow, one, other))

    def found_to(self, needle: str, target: str) -> list[str]:
        """The flows to an address (`host` or `host:port`) in which the needle was."""
        return [flow for flow in self.found[needle] if _is(flow.partition(">")[2], target)]

    def __str__(self) -> str:
        hits = ", ".join(f"{needle!r} in {len(flows)} flows" for needle, flows in self.found.items())
        return (
            f"{self.packets} packets of {len(self.flows)} flows, {self.dropped} dropped; {hits or 'nothing looked for'}"
        )


def _joins(flow: str, one: str, other: str) -> bool:
    source, _, target = flow.partition(">")
    return (_is(source, one) and _is(target, other)) or (_is(source, other) and _is(target, one))


def _is(address: str, wanted: str) -> bool:
    return address == wanted or address.rpartition(":")[0] == wanted


def without_loss(listened: Callable[[], Packets]) -> Packets:
    """Listens again until nothing was lost of what there was to hear.

    Raises:
        SetupProblem: something was lost each time.
    """
    lost = []
    for _ in range(TRIES):
        packets = listened()
        if not packets.dropped:
            return packets
        lost.append(str(packets.dropped))
    raise SetupProblem(
        f"each of {TRIES} captures lost packets ({', '.join(lost)}): the machine is too busy to watch its wires",
        "run with fewer workers",
    )


class Capture:
    """Captures while the block runs; `observed` is there after it.

    Args:
        needles: texts to look for.
        seconds: the capture ends by itself after so many.
    """

    def __init__(self, platform: Platform, *needles: str, seconds: float = 120.0) -> None:
        self.platform = platform
        self.needles = needles
        self.seconds = seconds
        self.observed: Packets | None = None
        self._id = uuid.uuid4().hex
        self._done: CompletedProcess[bytes] | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._tell("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell("stop")
        self._thread.join()
        if self._done is None or self._done.returncode != 0:
            raise self._failed()
        self.observed = Packets(**json.loads(self._done.stdout))
        evidence.note("packet capture", str(self.observed))

    def _run(self) -> None:
        wish = json.dumps({"id": self._id, "seconds": self.seconds, "needles": self.needles})
        try:
            self._done = self._sniffer("capture", wish, timeout=self.seconds + 15)
        except Exception as problem:
            self._problem = problem

    def _tell(self, word: str) -> None:
        told = self._sniffer("tell", self._id, word)
        if told.returncode != 0:
            raise self._failed()

    def _sniffer(self, *words: str, timeout: float = 30) -> CompletedProcess[bytes]:
        """The program is handed over: where it runs there need not be a file of ours."""
        return self.platform.run_beside(["python3", "-", *words], stdin=PROGRAM.read_bytes(), timeout=timeout)

    def _failed(self) -> SetupProblem:
        self._thread.join(LAST_WORDS_SECONDS)
        said = self._done.stderr.decode("utf-8", "replace").strip().splitlines() if self._done else []
        why = said[-1] if said else self._problem or "it ended before its time"
        return SetupProblem(
            f"cannot capture packets: {why}", "the platform's network must allow raw sockets (CAP_NET_RAW)"
        )
