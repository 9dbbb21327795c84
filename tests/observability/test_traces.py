"""One request, one trace: through both tiers, the sidecar and the model."""

import uuid

from fixtures.gateway import Gateway
from fixtures.models import OwnModelFactory
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import Check, answered, attribute, that
from inferencebox.probes.http import Call, Observation
from inferencebox.probes.traces import Jaeger, Span
from inferencebox.waiting import Timeouts, eventually

TIER_1 = "ai-inference-gateway.ai-gateway"
TIER_2 = "istio-ingressgateway.istio-system"
QUICK = attribute("elapsed", that("less than half a second", lambda seconds: seconds < 0.5))
"""What makes a request an ordinary one, beside one of 0.7 s: on a busy machine not every request is."""


def in_a_trace(call: Call) -> tuple[str, Call]:
    """A call that brings a trace of its own, as a client with tracing does."""
    trace = uuid.uuid4().hex
    return trace, call.adding(("traceparent", f"00-{trace}-{uuid.uuid4().hex[:16]}-01"))


def trace_of(call: Call, wanted: Check) -> str:
    """The trace of a reply that is as wanted; each that is not has a trace of its own."""
    traces = []

    def ask() -> Observation:
        trace, traced = in_a_trace(call)
        traces.append(trace)
        return traced()

    eventually(ask, wanted)
    return traces[-1]


def made_by(*services: str) -> Check:
    return that(f"spans of {', '.join(services)}", lambda seen: set(services) <= {span.service for span in seen})


@scenario(
    "OBS-10",
    needs=("jaeger", "gateway", "mesh", "models"),
    sabotage="traces.mesh-silent",
    seconds=8,
)
def test_one_trace_spans_both_tiers_the_sidecar_and_the_model(
    gateway: Gateway, tenant_a: Tenant, traces: Jaeger, story: Story
) -> None:
    """A request's trace, begun by the client, has tier 1, tier 2, the sidecar and the model in it, in that order."""
    trace, call = in_a_trace(gateway.predict(tenant_a.model, tenant_a.token))
    workload = f"{tenant_a.model.name}.{tenant_a.name}"
    with story.when("a client asks, and brings the beginning of a trace"):
        seen = eventually(call, answered(200))
    with story.then("all four have spans in that trace, and each hangs on the one before it"):
        in_order = that(
            "tier 1, tier 2 and the sidecar above the model's span",
            lambda spans: way_to(spans, workload) == [TIER_1, TIER_2, workload],
        )
        spans = eventually(
            traces.trace(trace),
            made_by(TIER_1, TIER_2, workload) & in_order,
            within=Timeouts.current().trace,
            every=0.5,
        )
    with story.then("the model's span is that of the request"):
        model = own_span(spans, workload)[0]
        assert model.tags["guid:x-request-id"] == seen.request_id
    with story.then("and the sidecar and the model are two of them"):
        own = [span for span in spans if span.service == workload]
        assert len(own) >= 2, f"{workload} has {len(own)} spans, wanted its sidecar's and its own"


def own_span(spans: list[Span], service: str) -> list[Span]:
    """What the model itself says; its sidecar, under the same name, says it of a host."""
    return [span for span in spans if span.service == service and span.name.startswith("/")]


def way_to(spans: list[Span], service: str) -> list[str]:
    """The services from the beginning of the trace to the model's own span, as far as they have arrived."""
    by_id = {span.id: span for span in spans}
    return [each for own in own_span(spans, service)[:1] for each in dict.fromkeys(ancestry(own, by_id))]


def ancestry(span: Span, by_id: dict[str, Span]) -> list[str]:
    """The services from the beginning of the trace to this span."""
    way = [span.service]
    while span.parent in by_id:
        span = by_id[span.parent]
        way.insert(0, span.service)
    return way


@scenario("OBS-11", needs=("jaeger", "gateway", "mesh"), sabotage="traces.mesh-silent", seconds=10)
def test_a_slow_and_a_failed_request_show_in_their_spans(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, traces: Jaeger, story: Story
) -> None:
    """The spans of a slow request are as long as it was, those of a failed one say so; an ordinary one is neither."""
    model = own_model("tenant-a")
    ask = gateway.predict(model, tenant_a.token)
    cases = {
        "slow": (ask.adding(("x-stub-delay-ms", "700")), answered(200)),
        "failed": (ask.adding(("x-stub-status", "501")), answered(501)),
        "ordinary": (ask, answered(200) & QUICK),
    }
    found = {}
    for name, (call, wanted) in cases.items():
        with story.when(f"a request is {name}"):
            trace = trace_of(call, wanted)
        everybody = made_by(TIER_1, TIER_2, f"{model.name}.tenant-a")
        spans = eventually(traces.trace(trace), everybody, within=Timeouts.current().trace, every=0.5)
        found[name] = {span.service: span for span in spans}
    for service in (TIER_1, TIER_2, f"{model.name}.tenant-a"):
        with story.then(f"the spans of {service} show which was which"):
            slow, failed, ordinary = (found[name][service] for name in cases)
            assert slow.milliseconds >= 690, f"slow took {slow.milliseconds} ms"
            assert failed.failed, f"no error in the failed one: {failed.tags}"
            assert str(failed.tags.get("http.status_code")) == "501", f"failed: {failed.tags}"
            assert ordinary.milliseconds < 690, f"ordinary took {ordinary.milliseconds} ms"
            assert not ordinary.failed, f"an error in the ordinary one: {ordinary.tags}"
