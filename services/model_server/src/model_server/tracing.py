"""Spans of the model itself, in the trace that the caller's `traceparent` names.

Only where OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (or ..._OTLP_ENDPOINT) says where they go: importing OpenTelemetry's SDK
takes time that a model without tracing should not spend. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say who this
is, as everywhere.
"""

import os

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NOT_TRACED = ("/metrics", "/v2/health/")
EXPORT_MILLISECONDS = 500


def traced(app: ASGIApp) -> ASGIApp:
    """The app, or one that makes a span of each request in front of it."""
    if not any(os.environ.get(name) for name in VARIABLES):
        return app
    from opentelemetry import propagate
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, Status, StatusCode

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=EXPORT_MILLISECONDS))
    tracer = provider.get_tracer("model-server")

    async def traced_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(NOT_TRACED):
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        about = {"http.request.method": scope["method"], "url.path": scope["path"]}
        about["guid:x-request-id"] = headers.get("x-request-id", "")
        caller = propagate.extract(headers)
        with tracer.start_as_current_span(scope["path"], caller, SpanKind.SERVER, about) as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await app(scope, receive, noted)

    return traced_app
