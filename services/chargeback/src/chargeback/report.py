"""The report: a row for each tenant and model, and the total."""

import csv
import io
from typing import Any

from chargeback.ledger import Ledger, Usage
from chargeback.prices import Prices

COLUMNS = ("tenant", "model", "requests", "tokens", "cpu_seconds", "cost")


def report(ledger: Ledger, prices: Prices) -> dict[str, Any]:
    """
    The total's usage is the ledger's own sum and its cost is priced model by model; both are given apart from the rows.
    """
    rows = [_row(tenant, model, usage, prices) for (tenant, model), usage in ledger.rows().items()]
    total = ledger.total()
    cost = sum(prices.of(tenant, model).of(usage) for (tenant, model), usage in ledger.used.items())
    return {"currency": prices.currency, "rows": rows, "total": {**_amounts(total), "cost": cost}}


def as_csv(content: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["rows"])
    writer.writerow({"tenant": "total", "model": "", **content["total"]})
    return text.getvalue()


def _row(tenant: str, model: str, usage: Usage, prices: Prices) -> dict[str, Any]:
    cost = prices.of(tenant, model).of(usage)
    return {"tenant": tenant, "model": model, **_amounts(usage), "cost": cost}


def _amounts(usage: Usage) -> dict[str, float]:
    return {"requests": usage.requests, "tokens": usage.tokens, "cpu_seconds": usage.cpu_seconds}
