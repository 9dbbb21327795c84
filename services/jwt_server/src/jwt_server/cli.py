"""Command line: serve, and look after the keys."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jwt_server.keys import KeyProblem, KeyStore

log = logging.getLogger("jwt-server")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if arguments.command == "serve":
            return _serve(arguments)
        logging.disable(logging.INFO)
        return _look_after(arguments)
    except KeyProblem as problem:
        print(f"jwt-server: {problem}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    env = os.environ
    keys_option = argparse.ArgumentParser(add_help=False)
    keys_option.add_argument(
        "--keys", type=Path, metavar="DIR", default=env.get("JWT_SERVER_KEYS"), required="JWT_SERVER_KEYS" not in env
    )
    parser = argparse.ArgumentParser(prog="jwt-server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", parents=[keys_option], help="answer requests")
    serve.add_argument("--host", default=env.get("JWT_SERVER_HOST", "0.0.0.0"))
    serve.add_argument("--port", type=int, default=env.get("JWT_SERVER_PORT", "8080"), help="0 takes a free one")
    serve.add_argument("--max-age", type=int, default=env.get("JWT_SERVER_MAX_AGE", "60"), help="of the JWKS, seconds")
    serve.add_argument(
        "--demo-tokens",
        action="store_true",
        default=env.get("JWT_SERVER_DEMO_TOKENS") == "1",
        help="hand out tokens at /tokens to clients on this machine (kubectl port-forward)",
    )
    actions = commands.add_parser("keys", help="list, rotate or retire signing keys").add_subparsers(
        dest="action", required=True
    )
    actions.add_parser("list", parents=[keys_option], help="newest first")
    actions.add_parser("rotate", parents=[keys_option], help="add a key and sign with it from now on")
    actions.add_parser("retire", parents=[keys_option], help="delete a key").add_argument("kid")
    return parser


def _look_after(arguments: argparse.Namespace) -> int:
    store = KeyStore(arguments.keys)
    match arguments.action:
        case "list":
            for key in store.live():
                print(key.kid)
        case "rotate":
            print(store.rotate())
        case "retire":
            store.retire(arguments.kid)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from jwt_server.app import create_app

    store = KeyStore(arguments.keys)
    store.ensure()
    try:
        listener = socket.create_server((arguments.host, arguments.port), backlog=1024)
    except OSError as error:
        print(f"jwt-server: cannot listen on {arguments.host}:{arguments.port}: {error.strerror}", file=sys.stderr)
        return 2
    app = create_app(store, demo_tokens=arguments.demo_tokens, max_age=arguments.max_age)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who connects, whatever X-Forwarded-For says
        timeout_graceful_shutdown=2,
    )
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    log.info("listening on http://%s:%d", arguments.host, listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _stop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)
