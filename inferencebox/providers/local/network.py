"""Networks of the box: a bridge, and for each pod a network namespace with an address on it and a sidecar's
capture rules. `plumber` makes them."""

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll

from .box import sockets_dir
from .supervisor import Program, Supervisor

BRIDGE = "pods"
NODE_ADDRESS = "10.99.0.1"
PREFIX = 16
SERVICE_RANGE = "10.96.0.0/16"
INBOUND_PORT = 15006
OUTBOUND_PORT = 15001
# Envoy's and pilot-agent's own ports, and the control port of our test servers: never captured
UNCAPTURED = (15000, 15006, 15008, 15020, 15021, 15090)
START_SECONDS = 15.0
ANSWER_SECONDS = 60.0
DONE = "done"


@dataclass(frozen=True)
class Pod:
    """One network namespace.

    Args:
        name: name of the namespace.
        address: IPv4 address on the bridge.
        captured: whether a sidecar takes its traffic: everything inbound, and outbound to Service addresses.
    """

    name: str
    address: str
    captured: bool = False


class Networks:
    """A client of the box's plumber."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._socket = sockets_dir(state) / "plumber.sock"

    def start_plumber(self, supervisor: Supervisor, python: Path) -> None:
        supervisor.run([Program("plumber", [str(python), "-m", f"{__package__}.plumber", str(self._socket)])])

    def add(self, pods: Sequence[Pod], iptables: Path) -> None:
        """Make them; `iptables` is `iptables-restore`."""
        self._ask(request("add", pods, str(iptables)))

    def remove(self, pods: Sequence[Pod]) -> None:
        """Also those that were made in part only."""
        self._ask(request("remove", pods))

    def _ask(self, message: bytes) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(ANSWER_SECONDS)
                poll(lambda: client.connect_ex(str(self._socket)) == 0, START_SECONDS)
                client.sendall(message)
                answer = client.makefile().readline().strip() or "the plumber died of it"
        except OSError as problem:
            answer = f"the plumber does not answer ({problem})"
        if answer != DONE:
            raise SetupProblem(f"networks could not be made: {answer}", "see `ibox doctor`")


def request(action: str, pods: Sequence[Pod], iptables: str = "") -> bytes:
    """The line that makes the plumber add or remove pods."""
    return json.dumps({"action": action, "pods": [asdict(pod) for pod in pods], "iptables": iptables}).encode() + b"\n"
