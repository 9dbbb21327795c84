"""The control port: what arrived, how many at once, and faults for every request. Not part of the model's API."""

import json
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_server.testing.instruments import Faults, Records


def create_control_app(records: Records) -> Starlette:
    async def arrivals(request: Request) -> Response:
        if request.method == "DELETE":
            records.arrivals.clear()
            records.attempts.clear()
            return Response(status_code=204)
        query = request.query_params
        try:
            since = float(query.get("since", 0))
        except ValueError:
            return _bad("since must be seconds since 1970")
        return JSONResponse(
            [
                asdict(arrival)
                for arrival in tuple(records.arrivals)
                if arrival.at >= since
                and arrival.path.startswith(query.get("path", ""))
                and ("probe" not in query or arrival.headers.get("x-probe") == query["probe"])
                and ("request_id" not in query or arrival.request_id == query["request_id"])
            ]
        )

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            records.faults = Faults()
        elif request.method == "PUT":
            try:
                records.faults = _faults(json.loads(await request.body()))
            except ValueError as problem:
                return _bad(str(problem))
        return JSONResponse(asdict(records.faults))

    async def concurrency(request: Request) -> Response:
        if request.method == "DELETE":
            now = records.concurrency.now
            records.concurrency.peak = now
            records.concurrency.total = now
        return JSONResponse(asdict(records.concurrency))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    return Starlette(
        routes=[
            Route("/arrivals", arrivals, methods=["GET", "DELETE"]),
            Route("/faults", faults, methods=["GET", "PUT", "DELETE"]),
            Route("/concurrency", concurrency, methods=["GET", "DELETE"]),
            Route("/health", health),
        ]
    )


LIMITS = {
    "delay_ms": (0, 3_600_000),
    "status": (200, 599),
    "fail_ratio": (0, 1),
    "ready": (0, 1),
    "metrics": (0, 1),
    "predict_delay_ms": (0, 3_600_000),
}
WHOLE = ("status", "ready", "metrics")


def _faults(wanted: Any) -> Faults:
    if not isinstance(wanted, dict) or not wanted.keys() <= LIMITS.keys():
        raise ValueError(f"faults are an object with {', '.join(LIMITS)}")
    given = {name: value for name, value in wanted.items() if value is not None}
    for name, value in given.items():
        low, high = LIMITS[name]
        kinds = int if name in WHOLE else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise ValueError(f"{name} must be a number from {low} to {high}")
    return Faults(**given)


def _bad(problem: str) -> JSONResponse:
    return JSONResponse({"error": problem}, status_code=400)
