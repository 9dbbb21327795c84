"""Tokens of published language models: what the gateway has counted, as Prometheus tells it, and what it adds up to.

Tier 1 counts the tokens of each reply for the publication whose key was used: its uid is in a header that only the
answer to the gateway's question about the key sets. These counters start anew with a process of the gateway, and Envoy
drops single ones with the listener that they belong to. So how far each was read is kept with the sum, in the status of
the publication.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

log = logging.getLogger("management.tokens")

COUNTED = 'sum by (instance, publication) (ai_model_tokens_total{job="tier-1", publication!=""})'
ASKED = 'sum by (instance) (timestamp(up{job="tier-1"}) * up{job="tier-1"})'
QUERY = f"{COUNTED} or {ASKED}"
"""Tokens by process of the gateway and publication; without a publication, when a process was asked: 0 if in vain."""
EVERY_SECONDS = 5.0
TIMEOUT_SECONDS = 3.0
KNOWN_SECONDS = 30.0
"""A reading that is older says no more how much was used."""


class Untold(Exception):
    """Prometheus does not say what was used."""


@dataclass(frozen=True)
class Counter:
    """How far one counter was read.

    Args:
        tokens: where it stood.
        read_at: when the gateway's process said so, in seconds since 1970 by Prometheus' clock.
    """

    tokens: int = 0
    read_at: float = 0.0


Counters = Mapping[str, Counter]
"""Of one publication, by process of the gateway."""


@dataclass(frozen=True)
class Process:
    """A process of the gateway.

    Args:
        asked_at: when it answered Prometheus, in seconds since 1970.
        tokens: what it has counted since it started, by uid of the publication; none of those it does not name.
    """

    asked_at: float
    tokens: Mapping[str, int]


@dataclass(frozen=True)
class Reading:
    """What all processes of the gateway have counted.

    Args:
        taken: when, by the clock that is never put back, in seconds.
    """

    taken: float
    processes: Mapping[str, Process]

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.taken <= KNOWN_SECONDS


def counters_of(status: Mapping[str, Any]) -> Counters:
    """As they are kept in the status of a publication."""
    kept = status.get("tokenCounters") or {}
    return {name: Counter(each["tokens"], each["readAt"]) for name, each in kept.items()}


def kept(counters: Counters) -> dict[str, dict[str, float]]:
    """The other way round."""
    return {name: {"tokens": each.tokens, "readAt": each.read_at} for name, each in counters.items()}


def added(used: int, counters: Counters, uid: str, reading: Reading) -> tuple[int, Counters]:
    """A publication's sum, and how far its counters were read, after a reading.

    A counter that is lower than before has started anew, and so has one that its process no longer tells. Of a process
    that is gone what it said last stays. What was read before that (by another replica, or from a Prometheus that has
    lost what it scraped last) changes nothing.
    """
    known = dict(counters)
    for name, process in reading.processes.items():
        before, now = known.get(name, Counter()), process.tokens.get(uid, 0)
        if process.asked_at > before.read_at and now != before.tokens:
            used += now - before.tokens if now > before.tokens else now
            known[name] = Counter(now, process.asked_at)
    return used, known


class GatewayCounters:
    """Asks Prometheus again and again, apart from any request.

    Args:
        prometheus: its address, `http://prometheus:9090`; empty if there is none.
        tell: takes each reading.
    """

    def __init__(self, prometheus: str, tell: Callable[[Reading], None]) -> None:
        self._prometheus = prometheus
        self._tell = tell
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def run(self) -> None:
        telling = True
        while self._prometheus:
            try:
                self._tell(await self.read())
                if not telling:
                    log.info("Prometheus tells again how many tokens were used")
                telling = True
            except Untold as problem:
                if telling:
                    log.warning("nobody says how many tokens were used: %s", problem)
                telling = False
            await asyncio.sleep(EVERY_SECONDS)

    async def read(self) -> Reading:
        """What stands there now.

        Raises:
            Untold: Prometheus does not answer in time, or a process of the gateway does not answer it.
        """
        taken = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reply = await self._http.get(f"{self._prometheus.rstrip('/')}/api/v1/query", params={"query": QUERY})
            reply.raise_for_status()
            processes = _processes(reply.json()["data"]["result"])
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError, TypeError) as problem:
            raise Untold(str(problem) or type(problem).__name__) from None
        return Reading(taken, processes)


def _processes(rows: list[dict[str, Any]]) -> Mapping[str, Process]:
    asked: dict[str, float] = {}
    silent: list[str] = []
    tokens: dict[str, dict[str, int]] = {}
    for row in rows:
        name, publication = row["metric"]["instance"], row["metric"].get("publication")
        now, value = float(row["value"][0]), float(row["value"][1])
        if publication is not None:
            tokens.setdefault(name, {})[publication] = round(value)
        elif now - value <= KNOWN_SECONDS:
            asked[name] = value
        else:  # not reached, or not asked yet by a Prometheus that was away: then it tells what it last knew
            silent.append(name)
    if silent:
        raise Untold(f"it does not reach the gateway at {', '.join(silent)}")
    if not asked:
        raise Untold("it watches no gateway")
    return MappingProxyType({name: Process(at, tokens.get(name, {})) for name, at in asked.items()})
