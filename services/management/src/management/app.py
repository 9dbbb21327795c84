"""The service as one ASGI application: API under /api, the console everywhere else."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from management import metrics
from management.api import admin, keys, models, publishing, session, trials
from management.errors import ApiError
from management.kube import KubeDown, KubeError
from management.middleware import Guard
from management.schemas import Health
from management.services import Services
from management.settings import Settings

log = logging.getLogger("management")

UI = Path(__file__).parent / "ui"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """The application.

    Args:
        services: the parts to use; made from the settings if not given.
    """
    parts = services or Services.of(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = (parts.register.run(), parts.publisher.run(), parts.counters.run())
        tasks = [asyncio.create_task(each) for each in running]
        for task in tasks:
            task.add_done_callback(_told_if_it_failed)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.register.flush()
        await parts.close()

    app = FastAPI(
        title="Model management",
        version="1.0.0",
        summary="Publishes the models of an inference platform",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
    )
    app.state.services = parts
    for module in (session, models, publishing, keys, trials, admin):
        app.include_router(module.router)
    _add_health(app, parts)
    app.router.routes.append(Route(keys.AUTHORIZE + "{rest:path}", keys.authorize, methods=METHODS))
    app.router.routes.append(Route("/api", _no_such_path, methods=METHODS))
    app.router.routes.append(Route("/api/{rest:path}", _no_such_path, methods=METHODS))
    app.mount("/static", StaticFiles(directory=UI / "static"), name="static")
    app.router.routes.append(Route("/{rest:path}", _page, methods=["GET"]))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(KubeDown, _kube_down)
    app.add_exception_handler(KubeError, _kube_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Guard, body_limit=settings.body_limit)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _add_health(app: FastAPI, parts: Services) -> None:
    @app.get("/health", tags=["health"])
    async def health() -> Health:
        """Alive; `degraded` while the Kubernetes API is away (what is published stays usable)."""
        status = "healthy" if parts.register.ready and await parts.kube.alive() else "degraded"
        return Health(status=status, timestamp=_now())  # type: ignore[arg-type]

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        """Whether keys can be judged: all that is published was read once."""
        return Response(status_code=200 if parts.register.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        for namespace in {each.namespace for each in parts.register.publications.values()}:
            count = sum(each.namespace == namespace for each in parts.register.publications.values())
            metrics.publications.labels(namespace).set(count)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _told_if_it_failed(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (problem := task.exception()):
        log.critical("a part of the service ended: %s", problem, exc_info=problem)


async def _page(_: Request) -> Response:
    return FileResponse(UI / "index.html", headers={"cache-control": "no-cache"})


async def _no_such_path(_: Request) -> Response:
    return JSONResponse({"error": "there is no such path"}, status_code=404)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, status_code=error.status_code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """What is wrong with a request, without repeating what was sent: it may hold a password."""
    assert isinstance(error, RequestValidationError)
    details = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"error": "the request is not valid", "details": details[:20]}, status_code=400)


async def _kube_down(_: Request, error: Exception) -> Response:
    body = {"error": "the Kubernetes API is away for the moment", "details": str(error)}
    return JSONResponse(body, status_code=503, headers={"retry-after": "5"})


async def _kube_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, KubeError)
    log.error("the Kubernetes API refused: %s %s %s", error.status, error.reason, error.message)
    body = {"error": "the Kubernetes API refused", "details": error.message[:300]}
    return JSONResponse(body, status_code=503, headers={"retry-after": "5"})


async def _unexpected(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "internal error"}, status_code=500)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document. Invalid requests get 400 here, not FastAPI's 422; tokens are bearer tokens."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    document["components"].setdefault("securitySchemes", {})["token"] = {"type": "http", "scheme": "bearer"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path not in PUBLIC:
                operation["security"] = [{"token": []}]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    app.openapi_schema = document
    return document


PUBLIC = {"/health", "/api/frameworks", "/api/admin/login", "/api/session", "/api/validate-api-key"}
