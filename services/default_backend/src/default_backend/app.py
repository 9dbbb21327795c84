from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(pod: str) -> Starlette:
    signed = {"x-pod": pod}

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy"}, headers=signed)

    async def no_model(request: Request) -> Response:
        name = request.path_params["rest"].split("/")[0].split(":")[0]
        return JSONResponse({"error": f"Model with name {name} does not exist."}, status_code=404, headers=signed)

    async def greet(request: Request) -> Response:
        return JSONResponse({"service": "default-backend", "path": request.url.path}, headers=signed)

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/v1/models/{rest:path}", no_model, methods=METHODS),
            Route("/v2/models/{rest:path}", no_model, methods=METHODS),
            Route("/{rest:path}", greet, methods=METHODS),
        ]
    )
