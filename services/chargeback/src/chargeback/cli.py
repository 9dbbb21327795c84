"""Command line: the exporter and its report."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvicorn

from chargeback.counters import Counters
from chargeback.errors import SetupProblem
from chargeback.ledger import Ledger
from chargeback.prices import Prices
from chargeback.reading import Readings
from chargeback.web import create_app


def main(argv: Sequence[str] | None = None) -> int:
    wanted = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        prices = Prices.load(wanted.prices)
        ledger = Ledger.open(wanted.ledger)
        listener = _listen(wanted.host, wanted.port)
    except SetupProblem as problem:
        print(f"chargeback: {problem}", file=sys.stderr)
        return 2
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    print(f"chargeback listening on http://{wanted.host}:{listener.getsockname()[1]}", flush=True)
    app = create_app(Readings(Counters(wanted.prometheus), ledger, wanted.every), prices)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    env = os.environ
    parser = argparse.ArgumentParser(prog="chargeback", description=__doc__)
    parser.add_argument("--host", default=env.get("HOST", "0.0.0.0"))
    parser.add_argument("--port", type=int, default=env.get("PORT", "8080"), help="0 takes a free one")
    parser.add_argument("--prometheus", default=env.get("PROMETHEUS_URL", "http://127.0.0.1:9090"), metavar="URL")
    parser.add_argument("--prices", type=Path, required=True, metavar="FILE", help="the price list")
    parser.add_argument("--ledger", type=Path, required=True, metavar="FILE", help="where usage is kept")
    parser.add_argument("--every", type=float, default=5, help="seconds between readings")
    return parser


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupProblem(f"cannot listen on {host}:{port}: {reason}") from None


def _stop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
