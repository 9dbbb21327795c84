"""What metrics tell of models that come and go with the traffic."""

from fixtures.gateway import Gateway
from fixtures.scenario import scenario
from fixtures.services import OwnServiceFactory, PodWatch
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import at_least, equals, that
from inferencebox.load import load
from inferencebox.probes.prometheus import Prometheus
from inferencebox.waiting import Timeouts, confirm, eventually

AT_WORK = (("x-stub-delay-ms", "200"),)


@scenario("OBS-04", needs=("prometheus", "autoscaling"), sabotage="scaling.autoscaler-stopped", seconds=120)
def test_processor_memory_and_scaling_are_told(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_c: Tenant, metrics: Prometheus, story: Story
) -> None:
    """After load metrics tell how many pods the autoscaler wanted and had, and what processor and memory they used."""
    service = own_service(tenant_c.name, scale_target=2, max_replicas=3)
    ask = gateway.predict(service, tenant_c.token, headers=AT_WORK).with_(timeout=30)
    with story.given("load that takes two pods or more"), PodWatch(service) as watch:
        load(ask.called("a prediction under load"), users=8, seconds=30)
    story.plot("pods under load", watch.plot())
    confirm(watch.most, at_least(2))
    waiting = {"within": 2 * Timeouts.current().metric, "every": 2.0}
    of_model = f'tenant="{tenant_c.name}", model="{service.name}"'
    for what, name in {"wanted": "autoscaler_desired_pods", "had": "autoscaler_actual_pods"}.items():
        with story.then(f"the most pods that the autoscaler {what} are told: two or more"):
            most = metrics.ask(f"max_over_time({name}{{{of_model}}}[5m])")
            eventually(most, that("2 or more", lambda seen: seen.total >= 2), **waiting)
    pods = f'tenant="{tenant_c.name}", pod=~"{service.name}-.*", container="kserve-container"'
    for what, query in {
        "processor time": f"max_over_time(container_cpu_usage_seconds_total{{{pods}}}[5m])",
        "memory": f"max_over_time(container_memory_working_set_bytes{{{pods}}}[5m])",
    }.items():
        with story.then(f"the {what} of more than one pod is told"):
            used = metrics.ask(query)
            eventually(lambda used=used: sum(value > 0 for value in used().series.values()), at_least(2), **waiting)
    with story.then("and nothing is told of a model that is not there"):
        confirm(metrics.query('autoscaler_desired_pods{model="own-nobody"}').total, equals(0))
