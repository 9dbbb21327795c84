"""Load: many users who ask at the same time, each again as soon as it has its reply. Locust's, in a process of its own.

(Locust replaces Python's sockets and threads by gevent's, which nothing else here could live with.) Bounded: so many
users, so many seconds, against one endpoint that the caller names.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import httpx

from inferencebox import evidence
from inferencebox.checks import Check, answered
from inferencebox.errors import SetupProblem
from inferencebox.probes.http import Call, Observation
from inferencebox.traffic import Sample, Window

USERS = 60
SECONDS = 600.0
STARTING_SECONDS = 60.0
"""What Locust may take to begin, and to end, beside the load itself."""
SPEC = "IBOX_LOAD"
"""Environment variable with the file that says what to send; see `Order`."""


@dataclass(frozen=True)
class Load:
    """What a load run saw.

    Args:
        window: each request and its reply.
        users, seconds: how many asked, for how long.
    """

    window: Window
    users: int
    seconds: float

    @property
    def throughput(self) -> float:
        """Good replies per second."""
        good = self.window.requests - self.window.errors
        return good / self.seconds if self.seconds else 0.0

    def plot(self) -> dict[str, object]:
        """For `story.plot`: every request of the run."""
        points = [[sample.start, 1000 * sample.seconds, sample.status] for sample in self.window.samples]
        return {"kind": "timeline", "points": points}

    def __str__(self) -> str:
        return (
            f"{self.users} users for {self.seconds:.0f} s, {self.throughput:.1f} good replies a second: {self.window}"
        )


def load(call: Call, users: int, seconds: float, ok: Check | None = None) -> Load:
    """Put a model under load; returns when it is over.

    Args:
        call: what every user asks for.
        users: how many ask at the same time, at most `USERS`.
        seconds: for how long, at most `SECONDS`. A reply that is not there then is waited for as long as the call says.

    Raises:
        SetupProblem: Locust is not installed, or did not do it.
    """
    if find_spec("locust") is None:
        raise SetupProblem("Locust is not installed", "uv sync --extra load")
    if not 0 < users <= USERS or not 0 < seconds <= SECONDS:
        raise ValueError(f"{users} users for {seconds} s is not a bounded load")
    with tempfile.TemporaryDirectory(prefix="inferencebox-load-") as folder:
        order, replies = Path(folder) / "order.json", Path(folder) / "replies.jsonl"
        order.touch(mode=0o600)  # the token is in it
        order.write_text(json.dumps(_order(call, seconds, replies)))
        _run_locust(call, users, seconds, order)
        if not replies.exists():
            raise SetupProblem("Locust sent nothing", "is another extra of gevent installed? uv sync --all-extras")
        samples = [_sample(json.loads(line), ok or answered(200)) for line in replies.read_text().splitlines()]
    window = Window(tuple(sorted(samples, key=lambda sample: sample.start)))
    if not window.samples:
        raise SetupProblem("Locust has no reply to anything", "is this machine busy?")
    lasted = max(sample.end for sample in window.samples) - window.samples[0].start
    found = Load(window, users, lasted)
    evidence.note(f"load: {call}", str(found))
    return found


def _order(call: Call, seconds: float, replies: Path) -> dict[str, object]:
    headers = [(name, value) for name, value in call.wire_headers("") if name not in ("content-length", "x-request-id")]
    return {
        "method": call.method,
        "path": call.path,
        "headers": headers,
        "body": call.content.decode(),
        "timeout": call.timeout,
        "seconds": seconds,
        "insecure": call.insecure or call.ca is not None,
        "replies": str(replies),
    }


def _run_locust(call: Call, users: int, seconds: float, order: Path) -> None:
    command = [
        sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR",
        "--locustfile", str(Path(__file__).with_name("users.py")), "--host", call.endpoint.url,
        "--users", str(users), "--spawn-rate", str(users),
        "--stop-timeout", f"{math.ceil(call.timeout)}s", "--exit-code-on-error", "0",
    ]  # fmt: skip
    settings = {**os.environ, SPEC: str(order)}
    limit = seconds + call.timeout + STARTING_SECONDS
    try:
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise SetupProblem(f"Locust did not end within {limit:.0f} s", "is this machine busy?") from None
    evidence.note("Locust's own summary", done.stdout + done.stderr)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupProblem(f"Locust failed: {last}", "uv sync --extra load")


def _sample(reply: dict[str, object], ok: Check) -> Sample:
    start, end = float(str(reply["start"])), float(str(reply["end"]))
    status = int(str(reply["status"])) or None
    headers = httpx.Headers(cast(list[tuple[str, str]], reply["headers"]))
    seen = Observation(status, headers, str(reply["body"]).encode(), end - start, None, str(reply["error"]))
    error = str(reply["error"]) if status is None else None
    return Sample(start, start, end, status, error, seen.pod, seen.model_version, error or ok(seen))
