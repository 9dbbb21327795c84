import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
BODY_LIMIT = 8 * 1024 * 1024


class OpenAIError(Exception):
    """Told to the client as OpenAI tells errors."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


def create_app(pod: str) -> Starlette:
    signed = {"x-pod": pod}

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy"}, headers=signed)

    async def no_model(request: Request) -> Response:
        name = request.path_params["rest"].split("/")[0].split(":")[0]
        return JSONResponse({"error": f"Model with name {name} does not exist."}, status_code=404, headers=signed)

    async def no_openai_model(request: Request) -> Response:
        try:
            name = _wanted_model(await _read(request))
            problem = OpenAIError(404, f"The model {name!r} does not exist", "model", "model_not_found")
        except OpenAIError as error:
            problem = error
        return JSONResponse({"error": problem.body}, status_code=problem.status, headers=signed)

    async def greet(request: Request) -> Response:
        return JSONResponse({"service": "default-backend", "path": request.url.path}, headers=signed)

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/v1/models/{rest:path}", no_model, methods=METHODS),
            Route("/v2/models/{rest:path}", no_model, methods=METHODS),
            *(Route(path, no_openai_model, methods=["POST"]) for path in OPENAI_PATHS),
            Route("/{rest:path}", greet, methods=METHODS),
        ]
    )


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise OpenAIError(413, f"The request body is longer than {BODY_LIMIT} bytes")
    return bytes(body)


def _wanted_model(body: bytes) -> str:
    """The model a request names."""
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError):
        raise OpenAIError(400, "The request body is not valid JSON") from None
    name = wanted.get("model") if isinstance(wanted, dict) else None
    if not isinstance(name, str) or not name:
        raise OpenAIError(400, "You must provide a model parameter", "model")
    return name
