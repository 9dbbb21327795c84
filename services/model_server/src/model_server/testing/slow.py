"""Makes models themselves slow on request, inside what KServe's SDK times as `request_predict_seconds`."""

import asyncio
from functools import wraps
from typing import Any

from model_server.models import TableModel
from model_server.testing.instruments import Records


def slow_down(records: Records) -> None:
    """From now on predictions of all models of this process take `predict_delay_ms` longer, whatever that says then."""
    original = TableModel.predict

    @wraps(original)
    async def predict(self: TableModel, *arguments: Any, **named: Any) -> Any:
        if delay := records.faults.predict_delay_ms:
            await asyncio.sleep(delay / 1000)
        return original(self, *arguments, **named)

    TableModel.predict = predict  # type: ignore[method-assign]
