"""The plumber: makes networks of the box. Runs inside it for as long as it lives, since starting a Python and importing
what speaks netlink takes ten times as long as the work.

``python -m inferencebox.providers.local.plumber SOCKET`` answers requests of `network.Networks`, one at a time.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError, NetNS, netns

from .box import NETNS_DIR
from .network import BRIDGE, DONE, INBOUND_PORT, NODE_ADDRESS, OUTBOUND_PORT, PREFIX, SERVICE_RANGE, UNCAPTURED, Pod


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
        route.link("add", ifname=outside, kind="veth", peer=cable_end(pod))
        index = route.link_lookup(ifname=outside)[0]
        route.link("set", index=index, master=bridge, state="up")
        inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")
        eth0 = inside.link_lookup(ifname="eth0")[0]
        inside.addr("add", index=eth0, address=pod.address, prefixlen=PREFIX)
        inside.link("set", index=eth0, state="up")
        inside.route("add", dst="default", gateway=NODE_ADDRESS)


def cable_end(pod: Pod) -> dict[str, str]:
    """The pod's end of its cable. Its hardware address follows from its IP address: who remembers that of an
    earlier pod with the same IP address (gateways do, for half a minute) reaches the one that has it now."""
    hardware = "02:00:" + socket.inet_aton(pod.address).hex(":")
    return {"ifname": "eth0", "net_ns_fd": pod.name, "address": hardware}


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
    command = ["nsenter", f"--net={NETNS_DIR}/{pod.name}", "--", iptables, "--noflush"]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"iptables in {pod.name}: {done.stderr.strip()}")


def serve(path: Path) -> None:
    """Answer each connection's one request with a line: that it is done, or what went wrong."""
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as line:
                line.write(_answer(line.readline()) + "\n")


def _answer(request: str) -> str:
    try:
        wanted = json.loads(request)
        pods = [Pod(**pod) for pod in wanted["pods"]]
        add(pods, wanted["iptables"]) if wanted["action"] == "add" else remove(pods)
    except Exception as problem:  # goes to who asked; others have not asked yet
        return " ".join(f"{type(problem).__name__}: {problem}".split())
    return DONE


if __name__ == "__main__":
    os.environ.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    serve(Path(sys.argv[1]))
