"""OpenAI-style requests: streamed replies as events with their times of arrival, and the official client.

Format: WHATWG HTML "Server-sent events" (events end with an empty line); OpenAI ends a stream with `data: [DONE]`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call, Observation

if TYPE_CHECKING:
    from openai import OpenAI

DONE = "[DONE]"


def chat(endpoint: Endpoint, model: str, prompt: str = "Hello", stream: bool = False, **options: Any) -> Call:
    """A chat request; options are fields of `Call`."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **({"stream": True} if stream else {})}
    return Call("POST", endpoint, "/v1/chat/completions", json=body, **options)


def client(endpoint: Endpoint, token: str, host: str | None = None, timeout: float = 30) -> "OpenAI":
    """The official client, unchanged but for its base URL (and a Host header, where names are not resolved)."""
    from openai import OpenAI  # here: it takes as long to import as all the rest of the suite

    headers = {"Host": host} if host else None
    return OpenAI(base_url=f"{endpoint.url}/v1", api_key=token, default_headers=headers, timeout=timeout, max_retries=0)


@dataclass(frozen=True)
class Event:
    """One event: seconds after sending at which its last byte came, and its data."""

    at: float
    data: str


@dataclass(frozen=True)
class Events:
    """The events of a streamed reply, in order."""

    events: tuple[Event, ...]

    @property
    def done(self) -> bool:
        """Whether the stream ended as promised: [DONE] last, and once."""
        return [event.data for event in self.events].count(DONE) == 1 and self.events[-1].data == DONE

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(event.data) for event in self.events if event.data != DONE]

    @property
    def text(self) -> str:
        """What the assistant said, put together."""
        deltas = (choice.get("delta", {}) for chunk in self.chunks for choice in chunk.get("choices", []))
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def spread(self) -> float:
        """Seconds from the first event to the last: about 0 if something on the way held the stream back."""
        return self.events[-1].at - self.events[0].at if self.events else 0.0


def read_events(seen: Observation) -> Events:
    """The server-sent events of a reply."""
    body = seen.body.replace(b"\r\n", b"\n") if b"\r\n" in seen.body else seen.body
    shrunk = len(seen.body) != len(body)
    arrivals = [(seen.elapsed, len(body))] if shrunk or not seen.arrivals else list(seen.arrivals)
    return Events(tuple(Event(at, data) for at, data in _events(body, arrivals)))


def _events(body: bytes, arrivals: Sequence[tuple[float, int]]) -> Iterator[tuple[float, str]]:
    position = 0
    for block in body.split(b"\n\n"):
        position += len(block) + 2
        lines = block.decode("utf-8", "replace").split("\n")
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        if data:
            yield _arrived(min(position, len(body)), arrivals), "\n".join(data)


def _arrived(position: int, arrivals: Sequence[tuple[float, int]]) -> float:
    """When the byte before this position came."""
    total = 0
    for at, size in arrivals:
        total += size
        if total >= position:
            return at
    return arrivals[-1][0]
