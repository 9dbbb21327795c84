"""What Locust runs: users who send one request again and again, and write down each reply.

The file that `$IBOX_LOAD` names says what to send. Run by Locust only; it imports nothing of ours, for gevent has
replaced Python's threads when it is loaded.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.env import Environment

SHOWN = 400
"""Characters of a failed reply that are kept."""
KEPT = ("x-pod", "x-model-version", "x-envoy-upstream-service-time", "x-envoy-overloaded", "server")
order: dict[str, Any] = json.loads(Path(os.environ["IBOX_LOAD"]).read_text())
replies: list[str] = []
began = time.monotonic()


class Asker(FastHttpUser):
    """One user: asks, waits for the reply, asks again."""

    network_timeout = order["timeout"]
    connection_timeout = order["timeout"]
    insecure = order["insecure"]

    @task
    def ask(self) -> None:
        headers = {**dict(order["headers"]), "x-request-id": str(uuid.uuid4())}
        start = time.monotonic() - began
        reply = self.client.request(order["method"], order["path"], headers=headers, data=order["body"], name="ask")
        status = reply.status_code or 0
        entry = {
            "start": round(start, 5),
            "end": round(time.monotonic() - began, 5),
            "status": status,
            "headers": [[name, value] for name, value in (reply.headers or {}).items() if name.lower() in KEPT],
            "body": "" if status == 200 else (reply.text or "")[:SHOWN],
            "error": "" if status else type(getattr(reply, "error", None)).__name__,
        }
        replies.append(json.dumps(entry))


@events.init.add_listener  # type: ignore[untyped-decorator]
def bound(environment: Environment, **_: object) -> None:
    """The load lasts as long as was asked for from when all users ask: Locust's own limit counts its start, too."""

    def begin(**_: object) -> None:
        assert environment.runner
        gevent.spawn_later(order["seconds"], environment.runner.quit)

    environment.events.spawning_complete.add_listener(begin)  # type: ignore[no-untyped-call]


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write_down(**_: object) -> None:
    Path(order["replies"]).write_text("\n".join(replies))
