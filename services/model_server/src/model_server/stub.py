"""stub-model-server: the v1, v2 and OpenAI protocols with canned answers. Light: no KServe, no numpy."""

import argparse
import hashlib
import itertools
import json
import math
import os
import re
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from model_server.body import BodyLimit
from model_server.openai import TextModel, openai_routes
from model_server.running import SetupProblem, listen, run, stopped_by_setup_problem
from model_server.testing.control import create_control_app
from model_server.testing.instruments import Instruments, Records

KINDS = ("any", "iris", "image", "text")
IRIS_FEATURES = 4
IMAGE_PIXELS = 64
_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])")


class BadInput(Exception):
    """Text is the answer's `error`."""


class CannedText:
    """Repeats what it was told, token by token; texts that share words have similar vectors."""

    dimensions = 64

    def count_tokens(self, text: str) -> int:
        return len(_TOKEN.findall(text))

    def continue_text(self, prompt: str, *, temperature: float, seed: int | None) -> Iterator[str]:
        yield from _TOKEN.findall("This is the stub model. It was told:")
        said = _TOKEN.findall(" " + prompt)
        yield from itertools.islice(said, 10_000)

    def embed(self, text: str) -> Sequence[float]:
        vector = [0.0] * self.dimensions
        for word in _TOKEN.findall(text.lower()) or [text]:
            digest = hashlib.blake2b(word.strip().encode(), digest_size=4).digest()
            for byte in digest:
                vector[byte % self.dimensions] += 1.0 if byte & 0x80 else -1.0
        length = math.hypot(*vector)
        return [value / length for value in vector] if length else [1.0, *vector[1:]]


class Names(Mapping[str, TextModel]):
    """The models by name: the given ones, or whatever name is asked for if none was given."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names or ["stub"]
        self.any_name = not names
        self.model = CannedText()

    def __getitem__(self, name: str) -> TextModel:
        if not self.any_name and name not in self.names:
            raise KeyError(name)
        return self.model

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return self.any_name or name in self.names


def create_stub(names: Sequence[str] = (), kind: str = "any") -> Starlette:
    models = Names(names)

    def known(request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in models:
            raise HTTPException(404, f"Model with name {name} does not exist.")
        return name

    async def v1_model(request: Request) -> Response:
        return JSONResponse({"name": known(request), "ready": True})

    async def v1_predict(request: Request) -> Response:
        known(request)
        wanted = await _json_object(request)
        instances = wanted.get("instances")
        if not isinstance(instances, list) or not instances:
            raise BadInput('Expected "instances" to be a list with at least one instance')
        return JSONResponse({"predictions": [_predict(instance, kind) for instance in instances]})

    async def v2_server(_: Request) -> Response:
        return JSONResponse({"name": "stub-model-server", "version": "0.1.0", "extensions": []})

    async def v2_live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def v2_ready(_: Request) -> Response:
        return JSONResponse({"ready": True})

    async def v2_models(_: Request) -> Response:
        return JSONResponse({"models": list(models)})

    async def v2_model(request: Request) -> Response:
        width = IMAGE_PIXELS if kind == "image" else IRIS_FEATURES
        described = {
            "name": known(request),
            "platform": "",
            "inputs": [{"name": "input-0", "datatype": "FP32", "shape": [-1, width]}],
            "outputs": [{"name": "output-0", "datatype": "INT64", "shape": [-1]}],
        }
        return JSONResponse(described)

    async def v2_infer(request: Request) -> Response:
        name = known(request)
        wanted = await _json_object(request)
        classes = [_class_of(_predict(row, kind)) for row in _rows(wanted)]
        output = {"name": "output-0", "shape": [len(classes)], "datatype": "INT64", "data": classes}
        answer = {"model_name": name, "id": wanted.get("id") or str(uuid.uuid4()), "outputs": [output]}
        return JSONResponse(answer)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    routes = [Route("/", live), Route("/v2/health/live", v2_live), Route("/v2/health/ready", v2_ready)]
    if kind in ("any", "text"):
        routes += openai_routes(models) + openai_routes(models, "/openai/v1")
    else:
        routes.append(Route("/v1/models", v2_models))
    if kind != "text":
        routes.append(Route("/v1/models/{name}:predict", v1_predict, methods=["POST"]))
        routes.append(Route("/v2/models/{name}/infer", v2_infer, methods=["POST"]))
    routes += [
        Route("/v1/models/{name}", v1_model),
        Route("/v2", v2_server),
        Route("/v2/models", v2_models),
        Route("/v2/models/{name}", v2_model),
        Route("/v2/models/{name}/ready", v1_model),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, BadInput: _bad_input})
    app.router.redirect_slashes = False
    return app


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        wanted = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise BadInput("Unrecognized request format: the body is not valid JSON") from None
    if not isinstance(wanted, dict):
        raise BadInput("Unrecognized request format: the body must be a JSON object")
    return wanted


def _predict(instance: Any, kind: str) -> int | dict[str, Any]:
    values = list(_flat(instance))
    if len(values) == IRIS_FEATURES and kind in ("any", "iris"):
        return _iris_class(values)
    if len(values) == IMAGE_PIXELS and kind in ("any", "image"):
        chosen = int(sum(values)) % 10
        return {"class": chosen, "probabilities": [0.91 if digit == chosen else 0.01 for digit in range(10)]}
    sizes = {"iris": f"{IRIS_FEATURES}", "image": f"{IMAGE_PIXELS}"}.get(kind, f"{IRIS_FEATURES} or {IMAGE_PIXELS}")
    raise BadInput(f"an instance must be {sizes} numbers, not {len(values)}")


def _flat(instance: Any) -> Iterator[float]:
    if isinstance(instance, list):
        for part in instance:
            yield from _flat(part)
    elif isinstance(instance, int | float) and not isinstance(instance, bool):
        yield instance
    else:
        raise BadInput("an instance must be made of numbers")


def _iris_class(values: Sequence[float]) -> int:
    """The two splits at the root of every decision tree that was ever trained on iris."""
    _, _, petal_length, petal_width = values
    if petal_length < 2.45:
        return 0
    return 1 if petal_width < 1.75 else 2


def _class_of(prediction: int | dict[str, Any]) -> int:
    return prediction if isinstance(prediction, int) else prediction["class"]


def _rows(wanted: dict[str, Any]) -> list[list[float]]:
    match wanted.get("inputs"):
        case [{"shape": [int(count), *rest], "data": list(data)}, *_] if count > 0 and all(
            isinstance(size, int) and size > 0 for size in rest
        ):
            values = list(_flat(data))
            width = math.prod(rest)
            if len(values) != count * width:
                raise BadInput(f"the input has {len(values)} values, its shape says {count * width}")
            return [values[row * width : (row + 1) * width] for row in range(count)]
    raise BadInput('Expected "inputs" to be a list of {name, shape, datatype, data}')


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _bad_input(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def create_app(records: Records, *, names: Sequence[str], kind: str, version: str, pod: str) -> ASGIApp:
    return Instruments(BodyLimit(create_stub(names, kind)), records, version, pod)


def main(argv: Sequence[str] | None = None) -> int:
    env = os.environ
    parser = argparse.ArgumentParser(prog="stub-model-server", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=env.get("PORT", "8080"), help="0 takes a free one")
    parser.add_argument("--control-port", type=int, default=env.get("CONTROL_PORT", "9999"))
    parser.add_argument(
        "--name",
        action="append",
        default=env["MODEL_NAME"].split(",") if env.get("MODEL_NAME") else [],
        help="answer as this model only (again for more); without it, any name is known",
    )
    parser.add_argument("--kind", choices=KINDS, default=env.get("MODEL_KIND", "any"), help="what instances look like")
    parser.add_argument("--version", default=env.get("MODEL_VERSION", "v1"), help="sent as x-model-version")
    parser.add_argument("--pod", default=env.get("POD_NAME") or socket.gethostname(), help="sent as x-pod")
    wanted = parser.parse_args(argv)
    records = Records()
    app = create_app(records, names=wanted.name, kind=wanted.kind, version=wanted.version, pod=wanted.pod)
    try:
        servers: dict[str, tuple[ASGIApp, socket.socket]] = {
            "model": (app, listen(wanted.host, wanted.port)),
            "control": (create_control_app(records), listen(wanted.host, wanted.control_port)),
        }
    except SetupProblem as problem:
        return stopped_by_setup_problem("stub-model-server", problem)
    run(servers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
