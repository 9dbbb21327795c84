"""The platform's counters, read from Prometheus."""

import json
from collections.abc import Iterator, Mapping

import httpx

from chargeback.ledger import Reading

QUERIES: Mapping[str, str] = {
    "requests": 'ai_model_requests_total{tenant!="", model!="", response_code=~"2.."}',
    "tokens": 'ai_model_tokens_total{tenant!="", model!=""}',
    "cpu_seconds": 'process_cpu_seconds_total{job="kserve-model", tenant!="", model!=""}',
}
TIMEOUT_SECONDS = 10.0


class Unanswered(Exception):
    """Prometheus did not say."""


class Counters:
    """
    Args:
        prometheus: its address, ``http://prometheus:9090``.
    """

    def __init__(self, prometheus: str) -> None:
        self._client = httpx.Client(base_url=prometheus, timeout=TIMEOUT_SECONDS, trust_env=False)

    def read(self) -> list[Reading]:
        """All of them as they stand now.

        Raises:
            Unanswered: not all could be read; then none count, so that no quantity is ahead of another.
        """
        return [reading for quantity, query in QUERIES.items() for reading in self._read(quantity, query)]

    def _read(self, quantity: str, query: str) -> Iterator[Reading]:
        try:
            reply = self._client.get("/api/v1/query", params={"query": query})
            reply.raise_for_status()
            found = reply.json()["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError) as problem:
            raise Unanswered(f"{quantity}: {problem}") from None
        for each in found:
            labels = each["metric"]
            series = json.dumps(labels, sort_keys=True)
            source = labels.get("instance", "")
            yield Reading(quantity, labels["tenant"], labels["model"], series, source, float(each["value"][1]))
