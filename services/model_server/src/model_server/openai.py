"""The OpenAI protocol for any small text model: chat, completions, embeddings, models. Needs Starlette only."""

import base64
import json
import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

CONTEXT_TOKENS = 8192
DEFAULT_MAX_TOKENS = 64
MAX_INPUTS = 2048
ROLES = ("system", "developer", "user", "assistant", "tool")

Json = dict[str, Any]


class TextModel(Protocol):
    @property
    def dimensions(self) -> int: ...
    def count_tokens(self, text: str) -> int: ...
    def continue_text(self, prompt: str, *, temperature: float, seed: int | None) -> Iterator[str]:
        """Pieces of text, one for each token, until the model has said what it has to say."""

    def embed(self, text: str) -> Sequence[float]: ...


class OpenAIError(Exception):
    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def response(self) -> Response:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        body = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": body}, status_code=self.status)


def openai_routes(models: Mapping[str, TextModel], prefix: str = "/v1") -> list[Route]:
    """Routes for text models by name. A name that is not there is unknown, unless `models` makes one up."""
    started = int(time.time())

    def card(name: str) -> Json:
        return {"id": name, "object": "model", "created": started, "owned_by": "model-server"}

    async def list_models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card(name) for name in models]})

    async def chat(request: Request) -> Response:
        wanted = await _json(request)
        name, model = _model(wanted, models)
        return _complete(name, model, wanted, _chat_prompt(wanted), _Chat)

    async def completions(request: Request) -> Response:
        wanted = await _json(request)
        name, model = _model(wanted, models)
        prompt = wanted.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str) or not prompt:
            raise OpenAIError("prompt must be a text that is not empty", param="prompt")
        return _complete(name, model, wanted, prompt, _Completion)

    async def embeddings(request: Request) -> Response:
        wanted = await _json(request)
        name, model = _model(wanted, models)
        return _embed(name, model, wanted)

    return [
        Route(f"{prefix}/models", list_models, methods=["GET"]),
        Route(f"{prefix}/chat/completions", _with_openai_errors(chat), methods=["POST"]),
        Route(f"{prefix}/completions", _with_openai_errors(completions), methods=["POST"]),
        Route(f"{prefix}/embeddings", _with_openai_errors(embeddings), methods=["POST"]),
    ]


Handler = Callable[[Request], Awaitable[Response]]


def _with_openai_errors(handler: Handler) -> Handler:
    async def handled(request: Request) -> Response:
        try:
            return await handler(request)
        except OpenAIError as error:
            return error.response()

    return handled


async def _json(request: Request) -> Json:
    try:
        wanted = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise OpenAIError("the request body is not valid JSON") from None
    if not isinstance(wanted, dict):
        raise OpenAIError("the request body must be a JSON object")
    return wanted


def _model(wanted: Json, models: Mapping[str, TextModel]) -> tuple[str, TextModel]:
    name = wanted.get("model")
    if not isinstance(name, str) or not name:
        raise OpenAIError("you must provide a model parameter", param="model")
    try:
        return name, models[name]
    except KeyError:
        problem = f"the model {name!r} does not exist"
        raise OpenAIError(problem, status=404, param="model", code="model_not_found") from None


def _chat_prompt(wanted: Json) -> str:
    messages = wanted.get("messages")
    if not isinstance(messages, list) or not messages:
        raise OpenAIError("messages must be a list with at least one message", param="messages")
    return "\n".join(_message_text(message, f"messages[{i}]") for i, message in enumerate(messages))


def _message_text(message: Any, where: str) -> str:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise OpenAIError(f"{where} needs a role: system, developer, user, assistant or tool", param=where)
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise OpenAIError("this model reads text parts only", param=f"{where}.content")
        return "".join(part["text"] for part in content)
    if content is None and message["role"] == "assistant":
        return ""
    if not isinstance(content, str):
        raise OpenAIError("content must be a text or a list of text parts", param=f"{where}.content")
    return content


def _number(wanted: Json, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
    value = wanted.get(name)
    if value is None:
        return default
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise OpenAIError(f"{name} must be a {'whole ' if whole else ''}number from {low} to {high}", param=name)
    return value


def _stops(wanted: Json) -> list[str]:
    stop = wanted.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(one, str) and one for one in stops):
        raise OpenAIError("stop must be a text or a list of up to 4 texts", param="stop")
    return stops


@dataclass(frozen=True)
class Generated:
    pieces: list[str]
    finish_reason: str
    usage: Json

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _generate(model: TextModel, wanted: Json, prompt: str) -> Generated:
    limit_name = "max_tokens" if "max_completion_tokens" not in wanted else "max_completion_tokens"
    max_tokens = int(_number(wanted, limit_name, DEFAULT_MAX_TOKENS, 1, CONTEXT_TOKENS, whole=True))
    temperature = _number(wanted, "temperature", 1.0, 0, 2)
    seed = wanted.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise OpenAIError("seed must be a whole number", param="seed")
    if _number(wanted, "n", 1, 1, 128, whole=True) != 1:
        raise OpenAIError("this model gives one choice only", param="n")
    stops = _stops(wanted)
    prompt_tokens = model.count_tokens(prompt)
    if prompt_tokens > CONTEXT_TOKENS:
        raise OpenAIError(
            f"the context holds {CONTEXT_TOKENS} tokens, the prompt has {prompt_tokens}",
            param="messages" if "messages" in wanted else "prompt",
            code="context_length_exceeded",
        )
    pieces: list[str] = []
    finish_reason = "stop"
    text = ""
    for piece in model.continue_text(prompt, temperature=temperature, seed=seed):
        if len(pieces) == max_tokens:
            finish_reason = "length"
            break
        pieces.append(piece)
        text += piece
        ends = [end for stop in stops if (end := text.find(stop)) >= 0]
        if ends:
            return Generated(_cut(pieces, min(ends)), "stop", _usage(prompt_tokens, len(pieces)))
    return Generated(pieces, finish_reason, _usage(prompt_tokens, len(pieces)))


def _cut(pieces: list[str], length: int) -> list[str]:
    kept: list[str] = []
    for piece in pieces:
        kept.append(piece[:length])
        length -= len(piece)
        if length <= 0:
            break
    return kept


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class _Chat:
    """How a chat answer looks, whole and in chunks."""

    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    @staticmethod
    def opening() -> list[Json]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    @staticmethod
    def piece(text: str) -> Json:
        return {"delta": {"content": text}}

    @staticmethod
    def end() -> Json:
        return {"delta": {}}

    @staticmethod
    def answer(text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}


class _Completion:
    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    @staticmethod
    def opening() -> list[Json]:
        return []

    @staticmethod
    def piece(text: str) -> Json:
        return {"text": text}

    @staticmethod
    def end() -> Json:
        return {"text": ""}

    @staticmethod
    def answer(text: str) -> Json:
        return {"text": text}


Shape = type[_Chat] | type[_Completion]


def _complete(name: str, model: TextModel, wanted: Json, prompt: str, shape: Shape) -> Response:
    stream = wanted.get("stream") or False
    options = wanted.get("stream_options") or {}
    if not isinstance(stream, bool):
        raise OpenAIError("stream must be true or false", param="stream")
    if not isinstance(options, dict) or (options and not stream):
        raise OpenAIError("stream_options goes with stream only, and is an object", param="stream_options")
    generated = _generate(model, wanted, prompt)
    head = {"id": shape.id_prefix + uuid.uuid4().hex, "created": int(time.time()), "model": name}
    if stream:
        events = _events(head, generated, shape, with_usage=options.get("include_usage") is True)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
    choice = {"index": 0, **shape.answer(generated.text), "logprobs": None, "finish_reason": generated.finish_reason}
    return JSONResponse({**head, "object": shape.whole, "choices": [choice], "usage": generated.usage})


async def _events(head: Json, generated: Generated, shape: Shape, *, with_usage: bool) -> AsyncIterator[str]:
    # With include_usage, each chunk says "usage": null until the last one, which has no choices.
    usage: Json = {"usage": None} if with_usage else {}

    def event(choice: Json, finish_reason: str | None = None) -> str:
        choices = [{"index": 0, **choice, "logprobs": None, "finish_reason": finish_reason}]
        return _sse({**head, "object": shape.chunk, "choices": choices, **usage})

    for opening in shape.opening():
        yield event(opening)
    for piece in generated.pieces:
        yield event(shape.piece(piece))
    yield event(shape.end(), generated.finish_reason)
    if with_usage:
        yield _sse({**head, "object": shape.chunk, "choices": [], "usage": generated.usage})
    yield "data: [DONE]\n\n"


def _sse(event: Json) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _embed(name: str, model: TextModel, wanted: Json) -> Response:
    given = wanted.get("input")
    texts = [given] if isinstance(given, str) else given
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_INPUTS
        or not all(isinstance(text, str) and text for text in texts)
    ):
        problem = f"input must be a text, or a list of up to {MAX_INPUTS} texts, none of them empty"
        raise OpenAIError(problem, param="input")
    encoding = wanted.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise OpenAIError("encoding_format must be float or base64", param="encoding_format")
    if wanted.get("dimensions") not in (None, model.dimensions):
        raise OpenAIError(f"this model gives {model.dimensions} dimensions", param="dimensions")
    used = sum(model.count_tokens(text) for text in texts)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(model.embed(text), encoding)}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return JSONResponse({"object": "list", "model": name, "data": data, "usage": usage})


def _encoded(vector: Sequence[float], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return list(vector)
