"""Puts models on KServe's app: v1 and v2 by the SDK, the OpenAI protocol by our own routes.

The SDK has OpenAI routes as well, but in 0.15.2 their types are vllm's (kserve/protocol/rest/openai/types imports
vllm.entrypoints), and vllm needs gigabytes and hardware that a small text model does not. Where vllm is missing the SDK
leaves its own routes out and says so in its log; ours stand in front, at /v1 and at the SDK's prefix /openai/v1.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import Gauge
from starlette.types import ASGIApp

from model_server.artifacts import accuracy
from model_server.body import BodyLimit
from model_server.models import ImageModel, IrisModel
from model_server.openai import openai_routes
from model_server.sdk import InvalidInput, Model, ModelServer, RESTServer
from model_server.sdk import app as kserve_app
from model_server.specs import ModelSpec
from model_server.tracing import traced


def create_app(models: Mapping[ModelSpec, Sequence[Path]]) -> ASGIApp:
    # The port belongs to this program's own listener; the SDK's server object is used for its app only.
    server = ModelServer(enable_grpc=False, enable_latency_logging=False, workers=1)
    logging.getLogger("kserve").setLevel(logging.WARNING)
    right = Gauge("ai_model_accuracy", "Share of right answers, as measured when it was trained", ["model_name"])
    text_models = {}
    for spec, files in models.items():
        if (measured := accuracy(spec.directory, spec.kind)) is not None:
            right.labels(spec.name).set(measured)
        if spec.kind == "text":
            from model_server.text_model import TinyText

            text_models[spec.name] = TinyText.load(*files)
            server.register_model(_TextPlace(spec.name))
        else:
            server.register_model({"sklearn": IrisModel, "onnx": ImageModel}[spec.kind](spec.name, *files))
    if text_models:
        for prefix in ("/v1", "/openai/v1"):
            kserve_app.router.routes.extend(openai_routes(text_models, prefix))
    kserve_app.add_exception_handler(RequestValidationError, _not_this_protocol)
    rest = RESTServer("", server.dataplane, server.model_repository_extension, http_port=0)
    rest.create_application()
    kserve_app.router.redirect_slashes = False
    return traced(BodyLimit(kserve_app))


class _TextPlace(Model):  # type: ignore[misc]
    """Makes a text model known to KServe, so that metadata and readiness answer for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        raise InvalidInput(f"{self.name} speaks the OpenAI protocol: POST /v1/chat/completions")


async def _not_this_protocol(_: Request, error: Exception) -> Response:
    """The SDK leaves a v2 request of the wrong shape to FastAPI, which answers 422 in a shape of its own."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"Unrecognized request format: {where}: {first['msg']}"}, status_code=400)
