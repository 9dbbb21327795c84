"""Makes connections inside the box and hands them out. Runs inside it; its only file descriptor is a socket to
the door.

A message is a JSON object ``{"address", "port", "pod"}``; the answer carries a connecting socket.
"""

import ctypes
import json
import os
import socket
import sys

from .box import NETNS_DIR

HOME = "/proc/self/ns/net"
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def dial(address: str, port: int, pod: str) -> socket.socket:
    """A non-blocking socket that has begun to connect, in the pod's network or the box's."""
    home = os.open(HOME, os.O_RDONLY)
    try:
        if pod:
            _enter_network(f"{NETNS_DIR}/{pod}")
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    finally:
        _set_network(home)
        os.close(home)
    connection.connect_ex((address, port))
    return connection


def _enter_network(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        _set_network(handle)
    finally:
        os.close(handle)


def _set_network(handle: int) -> None:
    """Python has ``os.setns`` only from 3.12 on."""
    if _libc.setns(handle, CLONE_NEWNET) != 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))


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
