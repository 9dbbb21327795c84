"""The ledger as metrics."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from chargeback.ledger import Ledger
from chargeback.prices import Prices
from chargeback.reading import Readings

LABELS = ("tenant", "model")


class Exported:
    """A collector of prometheus_client: what is asked for is made from the ledger at that moment."""

    def __init__(self, ledger: Ledger, prices: Prices, readings: Readings) -> None:
        self._ledger, self._prices, self._readings = ledger, prices, readings

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("tenant_usage_requests", "Requests that a model answered", labels=LABELS)
        tokens = CounterMetricFamily("tenant_usage_tokens", "Tokens of OpenAI replies", labels=LABELS)
        cpu = CounterMetricFamily("tenant_usage_cpu_seconds", "CPU seconds of the model's processes", labels=LABELS)
        money = CounterMetricFamily(
            "tenant_usage_cost", f"What it costs, in {self._prices.currency}", labels=(*LABELS, "currency")
        )
        each = GaugeMetricFamily("cost_per_inference", "Cost of a request on average", labels=(*LABELS, "currency"))
        for (tenant, model), usage in self._ledger.rows().items():
            cost = self._prices.of(tenant, model).of(usage)
            requests.add_metric([tenant, model], usage.requests)
            tokens.add_metric([tenant, model], usage.tokens)
            cpu.add_metric([tenant, model], usage.cpu_seconds)
            money.add_metric([tenant, model, self._prices.currency], cost)
            if usage.requests:
                each.add_metric([tenant, model, self._prices.currency], cost / usage.requests)
        yield from (requests, tokens, cpu, money, each)
        yield GaugeMetricFamily(
            "chargeback_last_reading_timestamp_seconds",
            "When Prometheus last answered",
            value=self._readings.last,
        )


def registry(ledger: Ledger, prices: Prices, readings: Readings) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Exported(ledger, prices, readings))
    return found
