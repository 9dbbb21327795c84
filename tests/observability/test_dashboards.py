"""The four dashboards: what they show exists. Drawing them is Grafana's business."""

import json
from collections.abc import Iterator
from typing import Any

from fixtures.gateway import Gateway
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.telemetry import some
from fixtures.tenants import Tenant
from inferencebox.checks import answered, refused
from inferencebox.paths import manifests_dir
from inferencebox.platform import Platform
from inferencebox.probes.prometheus import Prometheus
from inferencebox.waiting import Timeouts, eventually

TITLES = ["Business KPIs", "Model Performance", "Platform Overview", "Security Metrics"]


@scenario("OBS-08", needs=("prometheus", "chargeback", "models"), sabotage="metrics.tier-1-uncounted", seconds=30)
def test_every_panel_of_the_four_dashboards_has_data(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, metrics: Prometheus, platform: Platform, story: Story
) -> None:
    """Every query of every panel of the four dashboards returns data."""
    files = sorted((manifests_dir() / "observability" / "dashboards").glob("*.json"))
    boards = [json.loads(file.read_text()) for file in files]
    assert sorted(board["title"] for board in boards) == TITLES
    with story.given("some traffic of every kind: answered, refused, tokens"):
        for _ in range(3):
            eventually(gateway.predict(tenant_a.model, tenant_a.token), answered(200))
            eventually(gateway.predict(tenant_a.model, tenant_b.token), refused(403, by="rbac"))
            eventually(gateway.chat("tiny-llm", tenant_b.token), answered(200))
    for board in boards:
        with story.then(f"{board['title']} has data in every panel"):
            for query in queries(board):
                eventually(metrics.ask(query), some(), within=Timeouts.current().metric, every=2)
    if platform.capabilities.get("grafana"):
        not_exercised(f"every query has data; whether Grafana draws it: {platform.capabilities['grafana']}")


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
