"""The report, the metrics and the program's health over HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from chargeback.metrics import registry
from chargeback.prices import Prices
from chargeback.reading import Readings
from chargeback.report import as_csv, report

STALE_SECONDS = 60.0


def create_app(readings: Readings, prices: Prices) -> Starlette:
    async def give_report(request: Request) -> Response:
        wanted = request.query_params.get("format", "json")
        if wanted not in ("json", "csv"):
            return JSONResponse({"error": "format must be json or csv"}, status_code=400)
        content = report(readings.ledger, prices)
        return JSONResponse(content) if wanted == "json" else PlainTextResponse(as_csv(content), media_type="text/csv")

    async def health(_: Request) -> Response:
        stale = time.time() - readings.last > STALE_SECONDS
        words = "Prometheus has not answered for a minute" if stale else "healthy"
        return JSONResponse({"status": words}, status_code=503 if stale else 200)

    @contextlib.asynccontextmanager
    async def reading(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(readings.go_on())
        yield
        task.cancel()

    return Starlette(
        lifespan=reading,
        routes=[
            Route("/report", give_report),
            Route("/health", health),
            Mount("/metrics", make_asgi_app(registry(readings.ledger, prices, readings))),
        ],
    )
