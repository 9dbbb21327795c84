"""The Slack webhook, and what arrived.

Slack's side of the contract: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import json
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from alert_sink.records import Records

READABLE = ("pretext", "text", "fallback", "footer")


class Refused(Exception):
    """What Slack would not take, in Slack's words."""


def create_app(records: Records) -> Starlette:
    async def slack(request: Request) -> Response:
        try:
            payload = _payload(await request.body(), request.headers.get("content-type", ""))
            title, text = _readable(payload)
        except Refused as why:
            return PlainTextResponse(str(why), status_code=400)
        records.add("slack", str(payload.get("username", "")), [str(payload.get("channel", ""))], title, text)
        return PlainTextResponse("ok")

    async def notifications(request: Request) -> Response:
        asked = request.query_params
        try:
            since = float(asked.get("since", 0))
        except ValueError:
            return JSONResponse({"error": "since must be a number of seconds since 1970"}, status_code=400)
        found = records.find(since, asked.get("channel", ""), asked.get("contains", ""))
        return JSONResponse([asdict(each) for each in found])

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    return Starlette(
        routes=[
            Route("/slack", slack, methods=["POST"]),
            Route("/notifications", notifications),
            Route("/health", health),
        ]
    )


def _payload(body: bytes, kind: str) -> dict[str, Any]:
    try:
        text = body.decode()
        if kind.startswith("application/x-www-form-urlencoded"):
            text = parse_qs(text)["payload"][0]
        payload = json.loads(text)
    except (ValueError, KeyError):
        raise Refused("invalid_payload") from None
    if not isinstance(payload, dict):
        raise Refused("invalid_payload")
    return payload


def _readable(payload: dict[str, Any]) -> tuple[str, str]:
    attachments = payload.get("attachments") or []
    if not payload.get("text") and not payload.get("blocks") and not attachments:
        raise Refused("no_text")
    titles = [str(each["title"]) for each in attachments if each.get("title")]
    parts = [str(payload["text"])] if payload.get("text") else []
    parts += [str(each[name]) for each in attachments for name in READABLE if each.get(name)]
    parts += [f"{field['title']}: {field['value']}" for each in attachments for field in each.get("fields") or ()]
    return " ".join(titles), "\n".join(parts)
