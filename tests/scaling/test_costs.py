"""What a model costs that nobody asks."""

from fixtures.gateway import Gateway
from fixtures.scenario import scenario
from fixtures.services import COLD, ONE_AT_A_TIME, SOON_IDLE, OwnServiceFactory
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import answered, equals, that
from inferencebox.probes.prometheus import Prometheus
from inferencebox.traffic import burst
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

QUIET_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""What a container used is told after a look of the kubelet's and two of Prometheus', 45 s if none of them is late."""
USAGE = ("tenant_usage_requests_total", "tenant_usage_cpu_seconds_total", "tenant_usage_cost_total")


@scenario(
    "SCL-12",
    needs=("prometheus", "chargeback", "autoscaling"),
    sabotage=("chargeback.stopped", "scaling.to-zero-disabled"),
    group=ONE_AT_A_TIME,
    seconds=180,
)
def test_a_model_without_pods_costs_nothing(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, story: Story
) -> None:
    """A model without pods uses nothing and costs nothing, until somebody asks it again."""
    serving = ["--kind", "sklearn", "--name", "{name}"]
    service = own_service("tenant-a", program="model", arguments=serving, annotations=SOON_IDLE)
    labels = f'{{tenant="tenant-a", model="{service.name}"}}'
    ask = gateway.predict(service, tenant_a.token).with_(timeout=COLD)
    waiting = {"within": 2 * Timeouts.current().metric, "every": 2.0}
    with story.given("a model that is charged for what it does"):
        requests = metrics.growth(f"{USAGE[0]}{labels}")
        confirm(burst(ask, 20, parallel=2).errors, equals(0))
        eventually(requests, that("20 requests or more", lambda grown: grown.total >= 20), **waiting)
    with story.given("nobody asks, and it has no pods any more"):
        eventually(service.how_many, equals(0), within=Timeouts.current().scale_to_zero, every=1.0)
    with story.when("all that it had used is charged"):
        cost = f"{USAGE[2]}{labels}"
        late = {"within": SETTLED_SECONDS + waiting["within"], "every": 2.0}
        eventually(lambda: metrics.lately(cost, SETTLED_SECONDS), equals(0), **late)
    with story.then(f"it uses and costs nothing more, for {QUIET_SECONDS:.0f} s"):
        growths = {name: metrics.growth(f"{name}{labels}") for name in USAGE}
        nothing = equals(dict.fromkeys(USAGE, 0.0))
        consistently(
            lambda: {name: grown().total for name, grown in growths.items()}, nothing, QUIET_SECONDS, every=5.0
        )
    with story.when("it is asked again, and has woken up"):  # how soon is SCL-02's promise
        again = metrics.growth(cost)
        eventually(ask, answered(200), within=2 * COLD)
    with story.then("that is charged"):
        eventually(again, that("more", lambda grown: grown.total > 0), **waiting)
