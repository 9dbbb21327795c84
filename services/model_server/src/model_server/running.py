"""From an ASGI app to a process: ports, signals, exit codes."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import NoReturn

import uvicorn
import uvloop
from starlette.types import ASGIApp

GRACE_SECONDS = 1
BACKLOG = 2048


class SetupProblem(Exception):
    """Something around the program is wrong; the text is for the person who started it."""


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise SetupProblem(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from None


def stopped_by_setup_problem(program: str, problem: SetupProblem) -> int:
    print(f"{program}: {problem}", file=sys.stderr)
    return 2


def run(servers: Mapping[str, tuple[ASGIApp, socket.socket]]) -> None:
    """Serve all apps on one event loop until SIGTERM or SIGINT; requests in flight get a moment to finish."""
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    uvloop.run(_serve(servers))


class _Follower(uvicorn.Server):
    """Stops when the first server does, so it leaves the signals to that one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(servers: Mapping[str, tuple[ASGIApp, socket.socket]]) -> None:
    (first, *others) = servers.items()
    followers = [_Follower(_config(app)) for _, (app, _) in others]
    tasks = [
        asyncio.create_task(follower.serve(sockets=[listener]))
        for follower, (_, (_, listener)) in zip(followers, others, strict=True)
    ]
    for name, (_, listener) in servers.items():
        host, port = listener.getsockname()[:2]
        print(f"{name} listening on http://{host}:{port}", flush=True)
    _, (app, listener) = first
    await uvicorn.Server(_config(app)).serve(sockets=[listener])
    for follower in followers:
        follower.should_exit = True
    await asyncio.gather(*tasks)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        date_header=True,
        http="httptools",
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=75,
        ws="none",
    )


def _exit(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)
