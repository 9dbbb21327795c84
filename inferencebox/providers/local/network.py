"""Networks of the box: a bridge, and for each pod a network namespace with an address on it and a sidecar's
capture rules.

Runs inside the box: ``python -m inferencebox.providers.local.network`` reads a JSON list of pods to make or to remove.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError, NetNS, netns

BRIDGE = "pods"
NODE_ADDRESS = "10.99.0.1"
PREFIX = 16
SERVICE_RANGE = "10.96.0.0/16"
INBOUND_PORT = 15006
OUTBOUND_PORT = 15001
# Envoy's and pilot-agent's own ports, and the control port of our test servers: never captured
UNCAPTURED = (15000, 15006, 15008, 15020, 15021, 15090)


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


def make_bridge() -> None:
    with IPRoute() as route:
        route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")
        route.link("add", ifname=BRIDGE, kind="bridge")
        index = route.link_lookup(ifname=BRIDGE)[0]
        route.addr("add", index=index, address=NODE_ADDRESS, prefixlen=PREFIX)
        route.link("set", index=index, state="up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def add(pods: Sequence[Pod], iptables: str) -> None:
    with IPRoute() as route:
        bridge = route.link_lookup(ifname=BRIDGE)[0]
        for pod in pods:
            _plug(route, bridge, pod)
            if pod.captured:
                _capture(pod, iptables)


def remove(pods: Sequence[Pod]) -> None:
    """Also of pods that were made in part only. The kernel takes its time with a namespace; its cable goes at once,
    so that the address can be given to another pod."""
    with IPRoute() as route:
        for pod in pods:
            for index in route.link_lookup(ifname=_outside(pod)):
                with contextlib.suppress(NetlinkError):
                    route.link("del", index=index)
            with contextlib.suppress(FileNotFoundError):
                netns.remove(pod.name)


def _outside(pod: Pod) -> str:
    """Name of the bridge's end of the pod's cable."""
    return "v" + pod.address.replace(".", "")[-12:]


def _plug(route: IPRoute, bridge: int, pod: Pod) -> None:
    netns.create(pod.name)
    outside = _outside(pod)
    with NetNS(pod.name) as inside:
        route.link("add", ifname=outside, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod.name})
        index = route.link_lookup(ifname=outside)[0]
        route.link("set", index=index, master=bridge, state="up")
        inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")
        eth0 = inside.link_lookup(ifname="eth0")[0]
        inside.addr("add", index=eth0, address=pod.address, prefixlen=PREFIX)
        inside.link("set", index=eth0, state="up")
        inside.route("add", dst="default", gateway=NODE_ADDRESS)


def _capture(pod: Pod, iptables: str) -> None:
    """What ``istio-iptables`` does in a pod, but for outbound traffic, which is told apart by destination.

    Istio exempts the sidecar's own traffic by its user (1337); in a user namespace with one user there is no such
    user. The sidecar dials endpoints, workloads dial Services: so what goes to a Service's address is captured.
    """
    ports = ",".join(map(str, UNCAPTURED))
    rules = [
        f"-A PREROUTING -p tcp -m multiport ! --dports {ports} -j REDIRECT --to-ports {INBOUND_PORT}",
        f"-A OUTPUT -p tcp -d {SERVICE_RANGE} -j REDIRECT --to-ports {OUTBOUND_PORT}",
    ]
    script = "\n".join(["*nat", *rules, "COMMIT", ""])
    command = ["nsenter", f"--net=/run/netns/{pod.name}", "--", iptables, "--noflush"]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"iptables in {pod.name}: {done.stderr.strip()}")


def request(action: str, pods: Sequence[Pod], iptables: str = "") -> bytes:
    """The message that makes this module, run inside the box, add or remove pods."""
    return json.dumps({"action": action, "pods": [asdict(pod) for pod in pods], "iptables": iptables}).encode()


def main() -> None:
    os.environ.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    wanted = json.load(sys.stdin)
    pods = [Pod(**pod) for pod in wanted["pods"]]
    if wanted["action"] == "add":
        add(pods, wanted["iptables"])
    else:
        remove(pods)


if __name__ == "__main__":
    main()
