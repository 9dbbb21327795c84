"""Command line: one process that is a webhook and a mail server."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvicorn
from aiosmtpd.smtp import SMTP

from alert_sink.mail import Mailbox
from alert_sink.records import Records
from alert_sink.web import create_app


def main(argv: Sequence[str] | None = None) -> int:
    env = os.environ
    parser = argparse.ArgumentParser(prog="alert-sink", description=__doc__)
    parser.add_argument("--host", default=env.get("HOST", "0.0.0.0"))
    parser.add_argument("--port", type=int, default=env.get("PORT", "8080"), help="webhook; 0 takes a free one")
    parser.add_argument("--smtp-port", type=int, default=env.get("SMTP_PORT", "1025"), help="mail; 0 takes a free one")
    wanted = parser.parse_args(argv)
    try:
        web, mail = (_listen(wanted.host, port) for port in (wanted.port, wanted.smtp_port))
    except OSError as problem:
        print(f"alert-sink: {problem}", file=sys.stderr)
        return 2
    # uvicorn raises the signal again once it has stopped; being asked to stop is no error.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    asyncio.run(_serve(web, mail))
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from None


async def _serve(web: socket.socket, mail: socket.socket) -> None:
    records = Records()
    mailbox = Mailbox(records)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox, hostname="alert-sink"), sock=mail)
    for name, listener in (("webhook", web), ("mail", mail)):
        print(f"{name} listening on {listener.getsockname()[0]}:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        create_app(records), access_log=False, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    async with server:
        await uvicorn.Server(config).serve(sockets=[web])


def _stop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
