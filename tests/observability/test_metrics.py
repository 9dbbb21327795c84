"""Counters are held against what was really sent: requests exactly, sums of tokens and usage within 2 %."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import httpx

from fixtures.gateway import Gateway
from fixtures.models import OwnModelFactory
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.telemetry import OwnIris, grafana_of, grown, own_prediction, some, total
from fixtures.tenants import Tenant
from inferencebox.checks import answered, between, body_json, equals, refused, that
from inferencebox.platform import Platform
from inferencebox.probes.http import Call
from inferencebox.probes.prometheus import Prometheus, Vector
from inferencebox.traffic import burst
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

SETTLED: Any = {"within": Timeouts.current().metric, "every": 1.0}
SETTLED_SECONDS = 30.0
"""What is charged is known after a scrape, a reading of the chargeback service's and another scrape, 25 s at most."""


JOBS = {"kserve-model", "mesh", "tier-1", "istiod", "chargeback", "jaeger", "alertmanager", "prometheus"}
PARTS = {"prometheus", "alertmanager", "jaeger", "chargeback", "alert-sink"}
HEALTH = {
    "prometheus": "/-/ready",
    "alertmanager": "/-/ready",
    "jaeger": "/api/services",
    "prom-label-proxy": "/healthz",
    "chargeback": "/health",
    "alert-sink": "/health",
}
"""Where each entrance of telemetry says that it is well. The log collector has none; it is a target of job `logs`."""


@scenario(
    "OBS-01",
    needs=("prometheus", "alertmanager", "jaeger"),
    wants=("loki",),
    sabotage="telemetry.scrape-refused",
    seconds=15,
)
def test_telemetry_is_healthy_and_sees_every_part(platform: Platform, metrics: Prometheus, story: Story) -> None:
    """Prometheus, Alertmanager, Jaeger and Loki answer, and every part that should be watched is."""
    missing = {name: why for name in ("loki", "grafana", "kiali") if (why := platform.capabilities.get(name))}
    with_logs = "loki" not in missing
    with story("Each part runs"):
        running = {part.name for part in platform.components() if part.state == "running"}
        wanted = PARTS | {"loki", "log-collector"} if with_logs else PARTS
        assert wanted <= running, f"{', '.join(sorted(wanted - running))}: not running"
    with story("and answers at its health address"):
        for name, path in (HEALTH | {"loki": "/ready"} if with_logs else HEALTH).items():
            eventually(Call("GET", platform.endpoint(name), path).called(f"the health of {name}"), answered(200))
    if "grafana" not in missing:
        with story("Grafana says that its database is in order"):
            eventually(grafana_of(platform).get("/api/health"), answered(200) & body_json("database", equals("ok")))
    if "kiali" not in missing:
        with story("and Kiali that it is well"):
            eventually(Call("GET", platform.endpoint("kiali"), "/kiali/healthz"), answered(200))
    expected = JOBS | {"logs"} if with_logs else JOBS
    with story("Every job has targets, and each of them is up the next time it is scraped"):
        everything = that(f"all of {', '.join(sorted(expected))}", lambda jobs: expected <= jobs)
        eventually(lambda: {target.job for target in metrics.targets()}, everything, **SETTLED)
        before = {target.url: target.scraped for target in metrics.targets()}
        eventually(lambda: down_among(metrics, before), equals([]), **SETTLED)
    with story("and every replica of the mesh is among them"):
        eventually(lambda: unwatched(platform, metrics), equals([]), **SETTLED)
    if missing:
        rest = "; ".join(f"{name}: {why}" for name, why in missing.items())
        not_exercised(f"what there is is healthy, and every target is up; the rest: {rest}")


def unwatched(platform: Platform, metrics: Prometheus) -> list[str]:
    """Replicas of the mesh that Prometheus does not know; one that a test has just added it soon will."""
    pods = {workload.name for workload in platform.workloads() if workload.mesh}
    return sorted(pods - {target.labels.get("pod", "") for target in metrics.targets() if target.job == "mesh"})


def down_among(metrics: Prometheus, before: Mapping[str, str]) -> list[str]:
    """The platform's own targets that cannot be scraped, and why; replicas that tests add come and go.

    Args:
        before: when each URL was last scraped; what was known then may no longer be so.
    """
    return [
        f"{target.job} {target.labels.get('pod', '')}: {target.error or 'not scraped since'}"
        for target in metrics.targets()
        if (target.health != "up" or target.scraped == before.get(target.url))
        and not target.labels.get("pod", "").startswith("own-")
    ]


@scenario("OBS-02", needs=("prometheus", "gateway", "models"), sabotage="metrics.mesh-uncounted", seconds=25)
def test_fifty_requests_are_fifty_in_every_counter(
    own_iris: OwnIris, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, story: Story
) -> None:
    """Fifty requests are fifty at tier 1, at tier 2, at the model's sidecar and in KServe's own counter."""
    model = own_iris("own-counted")
    name = f'destination_service_name="{model.name}"'
    from_tier_2 = f'app="{model.name}", source_principal=~".*/sa/istio-ingressgateway"'
    counters = {
        "tier 1": f'ai_model_requests_total{{model="{model.name}", response_code="200"}}',
        "tier 2": f'istio_requests_total{{reporter="source", {name}, app="istio-ingressgateway", response_code="200"}}',
        "the sidecar": f'istio_requests_total{{reporter="destination", {from_tier_2}, response_code="200"}}',
        "KServe": f'request_predict_seconds_count{{model_name="{model.name}"}}',
    }
    ask = gateway.predict(model, tenant_a.token)

    def one_request() -> Sequence[float]:
        eventually(ask, answered(200))
        return [1.0] * len(counters)

    with story.given("what the first requests to the new model have been counted as"):
        settled(metrics, *counters.values())
    with story(ONE_MORE):
        before = dict(zip(counters, after_one_more(metrics, counters.values(), one_request), strict=True))
    with story.when("fifty requests are answered"):
        sent = burst(ask, 50, parallel=5)
        assert sent.errors == 0, str(sent)
    for where, growth in before.items():
        with story.then(f"{where} has counted fifty"):
            eventually(growth, total(50), **SETTLED)
    with story("and no more come after them"):
        consistently(before["KServe"], total(50), seconds=6, every=2)


def settled(metrics: Prometheus, *queries: str) -> None:
    """Waits until counters are there and no longer grow: not since before what grows last heard of the last request."""

    def growing() -> list[str]:
        return [query for query in queries if metrics.lately(query, SETTLED_SECONDS) or not metrics.query(query).total]

    eventually(growing, equals([]), within=2 * Timeouts.current().metric, every=3)


ONE_MORE = "and one more of each, so that the counters at tier 1 are those of the listener that it has now"


def after_one_more(
    metrics: Prometheus, queries: Collection[str], use: Callable[[], Sequence[float]]
) -> Sequence[Callable[[], Vector]]:
    """By how much counters have grown since one more use of each was counted.

    A counter at tier 1 that went with its listener, and is back at as much before the next scrape, is not seen to be
    gone (docs/telemetry.md): what is counted from here on is the present listener's.

    Args:
        use: uses each once; says by how much each is to grow by that, in the order of the queries.
    """
    growths = [metrics.growth(query) for query in queries]
    for growth, amount in zip(growths, use(), strict=True):
        eventually(growth, total(amount), **SETTLED)
    return [metrics.growth(query) for query in queries]


def caught_up(metrics: Prometheus, job: str) -> None:
    """Waits until each target of a job was scraped once more: what they have counted until now is known then."""
    now = metrics.query("vector(time())").total
    scraped = metrics.ask(f'min(timestamp(up{{job="{job}"}}))')
    eventually(scraped, that("a scrape since", lambda seen: seen.total > now), **SETTLED)


@scenario("OBS-03", needs=("prometheus", "ai-gateway", "models"), sabotage="metrics.tier-1-uncounted", seconds=20)
def test_latency_throughput_accuracy_and_tokens_are_told_by_tenant_and_model(
    gateway: Gateway, tenants: tuple[Tenant, ...], tenant_b: Tenant, metrics: Prometheus, story: Story
) -> None:
    """Latency, throughput, accuracy and tokens are there for each tenant's model, and count what is asked now."""
    series = {
        f"{tenant}'s {tenant.model.name}": f'{{tenant="{tenant}", model="{tenant.model.name}"}}' for tenant in tenants
    }
    growing = {
        f"{about} of {whose}": metrics.growth(f"{name}{labels}")
        for about, name in {
            "throughput": "ai_model_requests_total",
            "latency": "ai_model_request_duration_milliseconds_count",
            "KServe's own timing": "kserve_request_duration_seconds_bucket",
        }.items()
        for whose, labels in series.items()
    }
    tokens = 'ai_model_tokens_total{tenant="tenant-b", model="tiny-llm"}'
    growing["tokens of tenant-b's language model"] = metrics.growth(tokens)
    with story.given("each tenant's model is asked"):
        for tenant in tenants:
            eventually(own_prediction(gateway, tenant), answered(200))
        eventually(gateway.chat("tiny-llm", tenant_b.token), answered(200))
    for about, growth in growing.items():
        with story.then(f"{about} has grown"):
            eventually(growth, grown(1), **SETTLED)
    for whose, labels in series.items():
        with story.then(f"accuracy of {whose}"):
            eventually(metrics.ask(f"ai_model_accuracy{labels}"), some(), **SETTLED)
    with story("and accuracy is a share that a trained model can have"):
        for labels, value in metrics.query("ai_model_accuracy").series.items():
            assert 0.5 < value <= 1, f"{dict(labels)}: {value}"


@scenario("OBS-05", needs=("prometheus", "gateway.jwt"), sabotage="metrics.tier-1-uncounted", seconds=20)
def test_refusals_are_counted_by_their_kind(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, metrics: Prometheus, story: Story
) -> None:
    """So many requests without a token and so many with another tenant's are so many 401 and 403 in the counters."""
    model = own_model("tenant-a")
    mine = f'route=~"httproute/tenant-a/{model.name}/.*"'
    growth = {code: metrics.growth(f'ai_model_requests_total{{{mine}, response_code="{code}"}}') for code in (401, 403)}
    with story.when("seven come without a token and five with another tenant's"):
        nobody = burst(gateway.predict(model), 7, parallel=3, ok=refused(401, by="jwt"))
        other = burst(gateway.predict(model, tenant_b.token), 5, parallel=3, ok=refused(403, by="rbac"))
        assert nobody.errors == other.errors == 0, f"{nobody}; {other}"
    with story.then("seven more 401 are counted, of nobody's"):
        eventually(growth[401], total(7), **SETTLED)
        assert growth[401]().labels("tenant") == set(), "a request without a token was put down to a tenant"
    with story.then("and five more 403, of the tenant whose token it was"):
        eventually(growth[403], total(5), **SETTLED)
        assert growth[403]().labels("tenant") == {"tenant-b"}


@scenario("OBS-06", needs=("prometheus", "chargeback", "ai-gateway"), sabotage="chargeback.stopped", seconds=25)
def test_cost_usage_and_sla_are_told_and_plausible(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, metrics: Prometheus, story: Story
) -> None:
    """Cost per inference, usage and SLA compliance are there for models in use, and can be true."""
    usage = metrics.growth('tenant_usage_requests_total{tenant="tenant-a", model="sklearn-iris"}')
    with story.given("requests to tenant A's model and to a language model"):
        for _ in range(4):
            burst(gateway.predict(tenant_a.model, tenant_a.token), 5, parallel=2)
            eventually(gateway.chat("tiny-llm", tenant_b.token), answered(200))
    with story.then("usage grows by what was asked"):
        eventually(usage, that("20 or more", lambda seen: seen.total >= 20), **SETTLED)
    with story.then("an inference costs something, and less than a cent"):
        for tenant, model in (("tenant-a", "sklearn-iris"), ("tenant-b", "tiny-llm")):
            cost = metrics.ask(f'cost_per_inference{{tenant="{tenant}", model="{model}"}}')
            eventually(cost, some() & that("0 to 0.01", lambda seen: 0 < seen.total < 0.01), **SETTLED)
    with story.then("and the SLA is a share"):
        ratio = metrics.ask('sla_compliance_ratio{tenant="tenant-a", model="sklearn-iris"}')
        eventually(ratio, some() & that("0 to 1", lambda seen: 0 <= seen.total <= 1), **SETTLED)


@scenario("OBS-07", needs=("prometheus", "gateway.breaker"), sabotage="metrics.tier-1-uncounted", seconds=25)
def test_an_overload_shows_as_errors_and_as_the_breaker(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, story: Story
) -> None:
    """Requests that the circuit breaker refuses are counted as errors, with the breaker as the reason."""
    model = own_model("tenant-a")
    slow = gateway.predict(model, tenant_a.token, headers=(("x-stub-delay-ms", "1500"),), timeout=30)
    mine = f'model="{model.name}"'
    with story.given("what the first requests to the new model have been counted as"):
        caught_up(metrics, "tier-1")
        answers = metrics.growth(f"ai_model_requests_total{{{mine}}}")
        refusals = metrics.growth(f'ai_model_requests_total{{{mine}, response_flags=~".*UO.*"}}')
    with story.when("many more requests come at once than the breaker lets through"):
        sent = burst(slow, 330)
        refused_ones = sent.by_status.get("503", 0)
        assert refused_ones > 0, f"the breaker refused nobody: {sent}"
    with story.then("as many are counted with the breaker's flag as were refused"):
        eventually(refusals, total(refused_ones), **SETTLED)
    with story.then("and every request under the status that it had: the share of errors is the one that was met"):
        eventually(lambda: by_status(answers()), equals(sent.by_status), **SETTLED)


def by_status(counted: Vector) -> dict[str, float]:
    """How many requests were counted under each status; those under which none was are left out."""
    return {status: number for (status,), number in counted.by("response_code").items() if number}


@scenario(
    "OBS-15",
    needs=("prometheus", "gateway"),
    sabotage=("metrics.tier-1-uncounted", "metrics.failures-unseen"),
    seconds=40,
)
def test_the_sla_ratio_drops_when_requests_fail(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, story: Story
) -> None:
    """A model that fails a third of its requests is told to break its SLA, by about that much."""
    model = own_model("tenant-a")
    ratio = metrics.ask(f'sla_compliance_ratio{{tenant="tenant-a", model="{model.name}"}}')
    good = gateway.predict(model, tenant_a.token)
    bad = good.adding(("x-stub-status", "501"))  # 501: tier 1 does not ask again

    def some_requests(*calls: Call) -> Callable[[], Vector]:
        def ask() -> Vector:
            for call in calls:
                burst(call, 4, parallel=2, ok=answered(200) | answered(501))
            return ratio()

        return ask

    with story.given("a model all of whose requests are answered"):
        eventually(some_requests(good), some() & that("1", lambda seen: seen.total == 1), **SETTLED)
    with story.when("every third of them fails"):
        eventually(
            some_requests(good, good, bad),
            that("0.55 to 0.95", lambda seen: 0.55 < seen.total < 0.95),
            within=Timeouts.current().metric,
            every=2,
        )


@scenario(
    "TEN-12", needs=("prometheus", "chargeback", "ai-gateway", "models"), sabotage="chargeback.stopped", seconds=35
)
def test_usage_is_what_was_sent(
    own_iris: OwnIris,
    own_model: OwnModelFactory,
    gateway: Gateway,
    tenant_a: Tenant,
    tenant_b: Tenant,
    platform: Platform,
    metrics: Prometheus,
    story: Story,
) -> None:
    """Requests, tokens and CPU seconds that a tenant is charged for are those that were used, within 2 %."""
    # nobody else asks them; once requests to the second are charged for, all first chats with the first are
    talker, model = own_model("tenant-b", api="openai"), own_iris("own-charged")
    chat = gateway.chat(talker, tenant_b.token)
    charges = (
        f'tenant_usage_requests_total{{model="{model.name}"}}',
        f'tenant_usage_tokens_total{{model="{talker.name}"}}',
    )

    def one_of_each() -> Sequence[float]:
        eventually(gateway.predict(model, tenant_a.token), answered(200))
        return 1.0, eventually(chat, answered(200)).json()["usage"]["total_tokens"]

    with story.given("what the first requests to the new models were charged at"):
        settled(metrics, *charges)
    with story(ONE_MORE):
        requests, tokens = after_one_more(metrics, charges, one_of_each)
    with story.when("a hundred predictions and ten chats are answered"):
        assert burst(gateway.predict(model, tenant_a.token), 100, parallel=5).errors == 0
        said = [eventually(chat, answered(200)).json()["usage"]["total_tokens"] for _ in range(10)]
    with story.then("one tenant, and nobody else, is charged for a hundred requests"):
        eventually(requests, total(100, 0.02), **SETTLED)
        assert requests().labels("tenant") == {"tenant-a"}
    with story.then("the other for the tokens that the replies named, no fewer and no more"):
        eventually(tokens, total(sum(said), 0.02), **SETTLED)
        assert tokens().labels("tenant") == {"tenant-b"}
    with story("and no more come after them"):
        consistently(requests, total(100, 0.02), seconds=6, every=2)
        confirm(tokens(), total(sum(said), 0.02))
    with story.then("and the first for the CPU seconds that the model's process has really used"):
        used = metrics.ask(f'tenant_usage_cpu_seconds_total{{tenant="tenant-a", model="{model.name}"}}')
        pod = model.pods[0]

        def difference() -> float:
            charged, real = used().total, platform.cpu_seconds(pod)
            return abs(charged - real) / real

        eventually(difference, between(0, 0.02), within=Timeouts.current().metric, every=2)


@scenario("TEN-13", needs=("prometheus", "chargeback", "ai-gateway"), sabotage="chargeback.stopped", seconds=25)
def test_the_chargeback_report_sums_to_what_the_platform_counted(
    own_iris: OwnIris,
    gateway: Gateway,
    tenant_a: Tenant,
    tenants: tuple[Tenant, ...],
    platform: Platform,
    metrics: Prometheus,
    story: Story,
) -> None:
    """The report's rows sum to its total, and a row is what the gateway counted, within 1 %."""
    billed = own_iris("own-billed")  # nobody else asks it, and no restart of the gateway sets its count back
    url = f"{platform.endpoint('chargeback').url}/report"
    asked = metrics.growth('ai_model_requests_total{tenant!="", model!="", response_code="200"}')
    with story.given("requests of every tenant, all of them counted"):
        for tenant in tenants:
            burst(own_prediction(gateway, tenant), 20, parallel=4)
        burst(gateway.predict(billed, tenant_a.token), 100, parallel=4)
        eventually(asked, grown(60), **SETTLED)

    def report() -> dict[str, Any]:
        return dict(httpx.get(url, timeout=10, trust_env=False).raise_for_status().json())

    def apart() -> float:
        counted = metrics.query(f'ai_model_requests_total{{model="{billed.name}", response_code=~"2.."}}').total
        charged = sum(float(row["requests"]) for row in report()["rows"] if row["model"] == billed.name)
        return abs(charged - counted) / max(counted, 1)

    with story.then("each tenant has a row"):
        eventually(
            lambda: sorted({row["tenant"] for row in report()["rows"]}), equals([str(t) for t in tenants]), **SETTLED
        )
    content = report()
    with story.then("the rows sum to the total, in every column"):
        for column in ("requests", "tokens", "cpu_seconds", "cost"):
            rows, whole = sum(row[column] for row in content["rows"]), content["total"][column]
            assert abs(rows - whole) <= 0.01 * whole, f"{column}: rows {rows:g}, total {whole:g}"
    with story.then("and a row is what the gateway has counted"):
        enough = that("100 or more", lambda seen: seen.total >= 100)
        eventually(metrics.ask(f'ai_model_requests_total{{model="{billed.name}"}}'), enough, **SETTLED)
        eventually(apart, between(0, 0.01), **SETTLED)
    story.note("Chargeback", httpx.get(url, params={"format": "csv"}, timeout=10, trust_env=False).text, "text/csv")
