"""What Prometheus reads at `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

registry = CollectorRegistry()
requests = Counter(
    "management_requests", "Requests by route and status", ["method", "route", "status"], registry=registry
)
seconds = Histogram(
    "management_request_seconds",
    "Time of requests by route",
    ["route"],
    registry=registry,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
keys_checked = Counter("management_keys_checked", "API keys judged, by outcome", ["outcome"], registry=registry)
publications = Gauge("management_published_models", "Models that are published now", ["namespace"], registry=registry)
calls = Counter(
    "management_published_requests",
    "Requests let through to published models",
    ["namespace", "model"],
    registry=registry,
)
