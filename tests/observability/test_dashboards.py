"""The dashboards: what they show exists. Drawing them is Grafana's business, and the map of the mesh Kiali's."""

import contextlib
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from fixtures.gateway import Gateway
from fixtures.models import OwnModelFactory
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.telemetry import Dashboards, grafana_of, grown, kiali_of, some
from fixtures.tenants import Tenant
from inferencebox.checks import Check, answered, body_json, equals, refused, that
from inferencebox.paths import manifests_dir
from inferencebox.platform import Platform, Workload, WorkloadSpec
from inferencebox.probes.http import Observation
from inferencebox.probes.kubernetes import Kube
from inferencebox.probes.prometheus import Prometheus
from inferencebox.traffic import stream
from inferencebox.waiting import Timeouts, eventually

TITLES = ["Business KPIs", "Model Performance", "Platform Overview", "Security Metrics"]


@scenario("OBS-08", needs=("prometheus", "chargeback", "models"), sabotage="metrics.tier-1-uncounted", seconds=30)
def test_every_panel_of_the_four_dashboards_has_data(
    gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, metrics: Prometheus, platform: Platform, story: Story
) -> None:
    """Every query of every panel of the four dashboards returns data, of what happens now."""
    files = sorted((manifests_dir() / "observability" / "dashboards").glob("*.json"))
    boards = [json.loads(file.read_text()) for file in files]
    assert sorted(board["title"] for board in boards) == TITLES
    ask = gateway.predict(tenant_a.model, tenant_a.token)
    counted = metrics.growth(f'ai_model_requests_total{{model="{tenant_a.model.name}"}}')
    with story.given("some traffic of every kind: answered, refused, tokens"):
        for _ in range(3):
            eventually(ask, answered(200))
            eventually(gateway.predict(tenant_a.model, tenant_b.token), refused(403, by="rbac"))
            eventually(gateway.chat("tiny-llm", tenant_b.token), answered(200))
    with story.then("it is counted: what panels show is not from before"):
        eventually(counted, grown(6), within=Timeouts.current().metric, every=2)
    with stream(ask, rate=1):  # rates and quantiles need requests from one scrape to the next
        for board in boards:
            with story.then(f"{board['title']} has data in every panel"):
                for query in queries(board):
                    eventually(metrics.ask(query), some(), within=Timeouts.current().metric, every=2)
        if platform.capabilities.get("grafana"):
            not_exercised(f"every query has data; whether Grafana draws it: {platform.capabilities['grafana']}")
        for board in boards:
            with story.then(f"Grafana has {board['title']}, as code, and gets the same data for it"):
                drawn_by_grafana(grafana_of(platform), board)


def drawn_by_grafana(grafana: Dashboards, board: dict[str, Any]) -> None:
    """Grafana has a dashboard from its file, and data for each of its queries."""
    shown = answered(200) & body_json("dashboard.title", equals(board["title"]))
    eventually(grafana.get(f"/api/dashboards/uid/{board['uid']}"), shown & body_json("meta.provisioned", equals(True)))
    numbers = that("numbers", lambda series: any(math.isfinite(float(each["value"][1])) for each in series))
    for query in queries(board):
        drawn = grafana.get("/api/datasources/proxy/uid/prometheus/api/v1/query", query=query)
        eventually(drawn, answered(200) & body_json("data.result", numbers))


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def found(reply: Any, *steps: Any) -> Any:
    """What is at a place of a reply; nothing if it has no such place."""
    for step in steps:
        try:
            reply = reply[step]
        except (LookupError, TypeError):
            return None
    return reply


# What Grafana sends when somebody presses a datasource's "Test", and what it wants to see (Grafana 10.4:
# pkg/tsdb/prometheus/healthcheck.go, pkg/tsdb/loki/healthcheck.go, public/app/plugins/datasource/jaeger/datasource.ts)
TESTS: Mapping[str, tuple[str, Check]] = {
    "prometheus": ("/api/v1/query?query=1%2B1", that("2", lambda reply: found(reply, "data", "result", 1) == "2")),
    "loki": (
        "/loki/api/v1/query?query=vector%281%29%2Bvector%281%29",
        that("2", lambda reply: found(reply, "data", "result", 0, "value", 1) == "2"),
    ),
    "jaeger": ("/api/services", that("services", lambda reply: bool(found(reply, "data")))),
}


@scenario(
    "OBS-09",
    needs=("prometheus", "jaeger", "loki"),
    sabotage=("audit.store-stopped", "datasources.query-port-gone"),
    seconds=5,
)
def test_each_datasource_answers_what_grafana_would_ask(platform: Platform, story: Story) -> None:
    """Each datasource that Grafana is provisioned with answers Grafana's own test, at its address, from its place."""
    told = yaml.safe_load((manifests_dir() / "observability" / "dashboards" / "datasources.yaml").read_text())
    sources = {each["type"]: each for each in told["datasources"]}
    assert sources.keys() == TESTS.keys()
    with pod_like_grafanas(platform) as pod:
        for kind, source in sources.items():
            path, check = TESTS[kind]
            with story.then(f"{source['name']} answers at {source['url']}"):
                eventually(asked_from(pod, platform, source, path), check, within=Timeouts.current().metric, every=1)
    if why := platform.capabilities.get("grafana"):
        not_exercised(f"each datasource answers what Grafana's test asks; Grafana itself: {why}")
    for kind, source in sources.items():
        path, check = TESTS[kind]
        with story.then(f"and Grafana itself gets that answer from {source['name']}"):
            # by its proxy: Jaeger's plugin asks so, and has no health of its own in Grafana 10.4
            got = grafana_of(platform).get(f"/api/datasources/proxy/uid/{source['uid']}{path}")
            eventually(got, answered(200) & body_json("", check))


@contextlib.contextmanager
def pod_like_grafanas(platform: Platform) -> Iterator[Workload]:
    """A pod in telemetry's namespace, in the mesh under an identity of its own."""
    name = f"own-{uuid.uuid4().hex[:6]}"
    (pod,) = platform.add_workloads([WorkloadSpec("monitoring", name, name, program="client")])
    try:
        yield pod
    finally:
        platform.remove_workloads([pod])


def asked_from(pod: Workload, platform: Platform, source: Mapping[str, Any], path: str) -> Callable[[], Any]:
    """A probe: the answer that this pod gets, with the headers of the provisioning."""
    names, values = source.get("jsonData", {}), source.get("secureJsonData", {})
    headers = [
        word
        for number in range(1, len(names) + 1)
        for word in ("-H", f"{names[f'httpHeaderName{number}']}: {values[f'httpHeaderValue{number}']}")
    ]
    command = ["curl", "-sS", "-m", "10", *headers, f"{source['url']}{path}"]

    def ask() -> Any:
        done = platform.run_in(pod, command)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return (done.stdout or done.stderr).decode(errors="replace")

    return ask


@scenario("OBS-16", needs=("grafana", "kiali", "gateway.jwt"), sabotage="jwt.removed", seconds=5)
def test_the_dashboards_are_behind_the_gateway(gateway: Gateway, tenant_a: Tenant, story: Story) -> None:
    """Grafana and Kiali are reached by way of the gateway: nobody without a token is let in, who has one is."""
    # each page that needs no login of its own (Grafana: HTTP API, "Health"; Kiali: routing.go, "healthz")
    for host, path in (("grafana.inference-in-a-box", "/api/health"), ("kiali.inference-in-a-box", "/kiali/healthz")):
        door = gateway.at(host)
        with story(f"{host}: 401 without a token, 200 with one"):
            eventually(door.get(path), refused(401, by="jwt"))
            eventually(door.get(path, tenant_a.token), answered(200))
    for host, path in (
        ("grafana.inference-in-a-box", "/api/search"),
        ("kiali.inference-in-a-box", "/kiali/api/namespaces"),
    ):
        with story(f"{host}: behind the door everybody has to sign in, for it shows all tenants"):
            eventually(gateway.at(host).get(path, tenant_a.token), refused(401, at="tier-2"))


@scenario("OBS-12", needs=("kiali", "mesh.mtls", "models"), sabotage="metrics.mesh-uncounted", seconds=60)
def test_kiali_shows_the_mesh_as_it_is(
    own_model: OwnModelFactory, gateway: Gateway, tenants: tuple[Tenant, ...], platform: Platform, kube: Kube,
    story: Story,
) -> None:  # fmt: skip
    """Kiali's map has each tenant's model, the way to it with a lock on it, and no mistake in the configuration."""
    names = [tenant.name for tenant in tenants]
    kiali = kiali_of(platform, kube)
    # Kiali 2.11: /api/namespaces/graph (graph/config/common) and /api/istio/config (models/istio_validation.go)
    wanted = {"namespaces": ",".join(names), "graphType": "workload", "duration": "300s", "appenders": "securityPolicy"}
    graph = kiali.get("/api/namespaces/graph", **wanted)
    models = [own_model(tenant.name) for tenant in tenants]  # nobody has asked them before
    with contextlib.ExitStack() as load:
        with story.given("a new model of every tenant's, asked once a second from now on"):
            for tenant, model in zip(tenants, models, strict=True):
                load.enter_context(stream(gateway.predict(model, tenant.token), rate=1))
        with story.then("each is on the map, tier 2 leads to it, and its tenant is reached by mutual TLS only"):
            ways = {(model.tenant, model.name) for model in models}
            led_to = that("an edge with a lock from tier 2 to each model", lambda seen: led_to_by_tier_2(seen) >= ways)
            locked = that("no edge without a lock to any tenant", lambda seen: locked_spaces(seen) >= set(names))
            eventually(graph, answered(200) & led_to & locked, within=Timeouts.current().metric, every=2)
    with story.then("and Kiali finds no mistake in the tenants' configuration"):
        all_judged = that("objects of every tenant", lambda seen: set(names) <= judged(seen).keys())
        found = kiali.get("/api/istio/config", validate="true")
        seen = eventually(found, answered(200) & all_judged, within=Timeouts.current().metric, every=2)
        wrong = [mistake for name in names for mistake in judged(seen)[name]]
        assert not wrong, f"Kiali says: {'; '.join(wrong)}"


def judged(seen: Observation) -> dict[str, list[str]]:
    """Namespaces with objects that Kiali judged, and the mistakes that it found there; what tests bring is theirs."""
    found: dict[str, list[str]] = {}
    for kind, objects in (seen.json().get("validations") or {}).items():
        for each in objects.values():
            errors = [check for check in each["checks"] or [] if check["severity"] == "error"]
            told = [f"{kind} {each['name']}: {check['code']} {check['message']}" for check in errors]
            found.setdefault(each["namespace"], []).extend([] if each["name"].startswith("own-") else told)
    return found


Place = tuple[str, str]
"""Namespace and workload of a node on Kiali's map."""
TIER_2: Place = ("istio-system", "istio-ingressgateway")


def edges(seen: Observation) -> Iterator[tuple[Place, Place, bool]]:
    """From where to where requests go, and whether all of them by mutual TLS."""
    elements = seen.json()["elements"]
    nodes = [node["data"] for node in elements["nodes"]]
    places = {node["id"]: (node["namespace"], node.get("workload", "")) for node in nodes}
    for edge in (each["data"] for each in elements["edges"]):
        yield places[edge["source"]], places[edge["target"]], float(edge.get("isMTLS") or 0) == 100


def led_to_by_tier_2(seen: Observation) -> set[Place]:
    """What tier 2 leads to by mutual TLS."""
    return {target for source, target, is_locked in edges(seen) if source == TIER_2 and is_locked}


def locked_spaces(seen: Observation) -> set[str]:
    """Namespaces whose workloads are reached, all traffic to them being mutual TLS."""
    locks: dict[str, list[bool]] = {}
    for _, (namespace, _), is_locked in edges(seen):
        locks.setdefault(namespace, []).append(is_locked)
    return {namespace for namespace, each in locks.items() if all(each)}
