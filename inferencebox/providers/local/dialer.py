"""Makes connections inside the box and hands them out. Runs inside it; its only file descriptor is a socket to the door.

A message is a JSON object ``{"address", "port", "pod"}``; the answer carries a connecting socket.
"""

import json
import os
import socket
import sys

from pyroute2 import netns

HOME = "/proc/self/ns/net"


def dial(address: str, port: int, pod: str) -> socket.socket:
    """A non-blocking socket that has begun to connect, in the pod's network or the box's."""
    home = os.open(HOME, os.O_RDONLY)
    try:
        if pod:
            netns.setns(pod)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    finally:
        netns.setns(home)
        os.close(home)
    connection.connect_ex((address, port))
    return connection


def main() -> None:
    door = socket.socket(fileno=int(sys.argv[1]))
    while message := door.recv(4096):
        wanted = json.loads(message)
        try:
            connection = dial(wanted["address"], wanted["port"], wanted["pod"])
        except OSError as problem:
            door.send(str(problem).encode())
            continue
        with connection:
            socket.send_fds(door, [b"ok"], [connection.fileno()])


if __name__ == "__main__":
    main()
