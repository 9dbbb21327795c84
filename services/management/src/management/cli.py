"""Command line: serve, and set the administrator's password."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from management.settings import Settings

log = logging.getLogger("management")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = Settings.of(os.environ)
    except ValueError as problem:
        print(f"management: {problem}. Fix: see services/management/README.md", file=sys.stderr)
        return 2
    if arguments.command == "set-password":
        return asyncio.run(_set_password(settings, arguments.username))
    return _serve(settings, arguments.host, arguments.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="management",
        description="Publishes the models of an inference platform. Settings: variables MANAGEMENT_*, see README.",
        epilog="examples: management serve --port 8080; echo SECRET | management set-password admin",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer requests")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    password = commands.add_parser("set-password", help="make the administrator, with the password read from stdin")
    password.add_argument("username")
    return parser


async def _set_password(settings: Settings, username: str) -> int:
    from management.identity import Administrators
    from management.kube import SECRETS, Kube

    kube = Kube(settings.kube_url, settings.kube_token, settings.kube_ca)
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        print("management: no password on stdin. Fix: echo SECRET | management set-password admin", file=sys.stderr)
        return 2
    await kube.delete(SECRETS, settings.namespace, Administrators.SECRET)
    await Administrators(settings, kube).set(username, password)
    await kube.close()
    return 0


def _serve(settings: Settings, host: str, port: int) -> int:
    import uvicorn

    from management.app import create_app

    try:
        listener = socket.create_server((host, port), backlog=2048)
    except (OSError, OverflowError) as error:
        print(f"management: cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        ws="none",
        backlog=2048,
    )
    gc.collect()
    gc.freeze()  # what is there from the start stays: a collection need not go through it while requests wait
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    log.info("listening on http://%s:%d", host, listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _stop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)
