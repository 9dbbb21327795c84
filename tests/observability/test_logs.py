"""Logs in one place: what models say, and who did what."""

import time
import uuid

from fixtures.gateway import Gateway
from fixtures.management import Management
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.telemetry import OwnIris, grafana_of, own_prediction
from fixtures.tenants import Tenant
from inferencebox.checks import answered, at_least, equals, length, refused, that
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube
from inferencebox.probes.loki import Loki, lines_of
from inferencebox.waiting import Timeouts, consistently, eventually


@scenario("OBS-13", needs=("loki", "models"), sabotage="audit.collector-stopped", seconds=25)
def test_a_models_line_is_in_loki_within_a_minute(
    own_iris: OwnIris, gateway: Gateway, tenant_a: Tenant, tenant_b: Tenant, platform: Platform, log_store: Loki,
    story: Story,
) -> None:  # fmt: skip
    """What a model's server says of a request is in Loki within a minute, for its tenant and for nobody else's."""
    began = time.time()
    model = own_iris("own-talking")
    query = f'{{log="model", tenant="tenant-a"}} |= "{model.name}:predict"'
    with story.when("the model answers a request"):
        eventually(gateway.predict(model, tenant_a.token), answered(200))
    with story.then("its line is in Loki, under the name of the pod that wrote it"):
        lines = eventually(
            log_store.lines(query, since=began), length(at_least(1)), within=Timeouts.current().log_line, every=0.5
        )
        sources = {line.labels["source"] for line in lines}
        assert sources == {pod.name for pod in model.pods}, f"written by {sources}"
    own, others = (Loki(log_store.endpoint, tenant) for tenant in ("tenant-a", "tenant-b"))
    with story.then("its tenant has it too"):
        eventually(own.lines(query, since=began), length(at_least(1)), within=Timeouts.current().log_line, every=0.5)
    with story.then("another tenant has what its own model says later"):
        asked = time.time()
        eventually(own_prediction(gateway, tenant_b), answered(200))
        theirs = others.lines(f'{{log="model", tenant="tenant-b"}} |= "{tenant_b.model.name}:predict"', since=asked)
        eventually(theirs, length(at_least(1)), within=Timeouts.current().log_line, every=0.5)
    with story.then("and not that line"):
        consistently(others.lines(f'{{log=~".+"}} |= "{model.name}"', since=began), length(equals(0)), seconds=3)
    if why := platform.capabilities.get("grafana"):
        not_exercised(f"the line is in Loki; whether Grafana shows it: {why}")
    with story.then("and Grafana finds it by way of its datasource"):
        found = grafana_of(platform).get("/api/datasources/proxy/uid/loki/loki/api/v1/query_range", query=query)
        eventually(found, answered(200) & that("the line", lambda seen: len(lines_of(seen.json())) > 0))


@scenario(
    "OBS-14",
    needs=("loki", "gateway.jwt", "management", "kubernetes.audit", "outages"),
    sabotage=("audit.collector-stopped", "audit.kubernetes-unread"),
    exclusive=True,
    seconds=45,
)
def test_the_audit_stream_is_whole(
    gateway: Gateway, management: Management, kube: Kube, tenant_a: Tenant, platform: Platform, log_store: Loki,
    story: Story,
) -> None:  # fmt: skip
    """What happens at tier 1, in the console and at the Kubernetes API is in one stream, also if Loki was away then."""
    began = time.time()
    wanted = {}
    for moment in ("with Loki there", "while Loki is away"):
        if moment == "while Loki is away":
            platform.stop("loki")
        try:
            with story.when(f"{moment}, somebody asks a model, fails to log in and changes an object"):
                wanted |= deeds(gateway, management, kube, tenant_a)
        finally:
            if moment == "while Loki is away":
                platform.start("loki")
    for marker, source in wanted.items():
        with story.then(f"{source} has told of it, once"):
            line = eventually(
                log_store.lines(f'{{log="audit", source="{source}"}} |= "{marker}"', since=began),
                length(equals(1)),
                within=Timeouts.current().audit,
                every=0.5,
            )[0]
            assert line.fields, f"not JSON: {line.text}"
            assert began - 1 <= line.at <= time.time() + 1, f"its time is {line.at:.0f}"
    with story.then("and no entry comes twice"):
        everything = f'{{log="audit"}} |~ "{"|".join(wanted)}"'
        consistently(log_store.lines(everything, since=began), length(equals(len(wanted))), seconds=5)


def deeds(gateway: Gateway, management: Management, kube: Kube, tenant: Tenant) -> dict[str, str]:
    """Does one thing at each place that is audited; gives what the entry contains, and who writes it."""
    asked = eventually(gateway.predict(tenant.model, tenant.token), answered(200))
    name = f"nobody-{uuid.uuid4().hex[:8]}"
    eventually(management.login(username=name, password="wrong"), refused(401))
    changed = f"audited-{uuid.uuid4().hex[:8]}"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": changed, "namespace": "default"}}
    kube.create(config).require()
    kube.get("configmap", changed, "default").require()  # reading is no deed
    return {asked.request_id: "tier-1", name: "management", changed: "kubernetes"}
