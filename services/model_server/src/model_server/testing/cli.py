"""model-server-testing: the same server with faults on request, records of what arrived, and an echo."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from starlette.types import ASGIApp

from model_server.cli import Servers, build_parser, execute
from model_server.running import listen
from model_server.testing.control import create_control_app
from model_server.testing.instruments import Instruments, Records


def main(argv: Sequence[str] | None = None) -> int:
    env = os.environ
    parser, serve = build_parser("model-server-testing")
    serve.add_argument("--control-port", type=int, default=env.get("CONTROL_PORT", "9999"))
    serve.add_argument("--version", default=env.get("MODEL_VERSION", "v1"), help="sent as x-model-version")
    serve.add_argument("--pod", default=env.get("POD_NAME") or socket.gethostname(), help="sent as x-pod")
    return execute("model-server-testing", parser.parse_args(argv), _with_instruments)


def _with_instruments(wanted: argparse.Namespace, app: ASGIApp) -> tuple[ASGIApp, Servers]:
    from model_server.testing.slow import slow_down

    records = Records()
    slow_down(records)
    control = create_control_app(records), listen(wanted.host, wanted.control_port)
    return Instruments(app, records, wanted.version, wanted.pod), {"control": control}


if __name__ == "__main__":
    sys.exit(main())
