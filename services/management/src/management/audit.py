"""Who did what: one JSON line each on standard output, the last few kept to be shown. Never a key, token or body."""

import json
import sys
from collections import deque
from datetime import UTC, datetime
from typing import Any

KEPT = 500


class Audit:
    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def note(
        self, action: str, outcome: str, *, tenant: str = "", subject: str = "", request_id: str = "", **facts: Any
    ) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "audit": action,
            "outcome": outcome,
            "tenant": tenant,
            "subject": subject,
            "request_id": request_id,
            **{name: value for name, value in facts.items() if value is not None},
        }
        self.recent.append(entry)
        print(json.dumps(entry), file=sys.stdout, flush=True)
