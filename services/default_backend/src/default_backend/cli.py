import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvicorn

from default_backend.app import create_app


def main(argv: Sequence[str] | None = None) -> int:
    env = os.environ
    parser = argparse.ArgumentParser(prog="default-backend", description="Answers what no other route takes.")
    parser.add_argument("--host", default=env.get("HOST", "0.0.0.0"))
    parser.add_argument("--port", type=int, default=env.get("PORT", "8080"), help="0 takes a free one")
    parser.add_argument("--pod", default=env.get("POD_NAME") or socket.gethostname(), help="sent as x-pod")
    wanted = parser.parse_args(argv)
    try:
        listener = socket.create_server((wanted.host, wanted.port), backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"default-backend: cannot listen on {wanted.host}:{wanted.port}: {reason}", file=sys.stderr)
        return 2
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    print(f"default-backend listening on http://{wanted.host}:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        create_app(wanted.pod),
        access_log=False,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _stop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
