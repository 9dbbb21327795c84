"""Balancing: every replica of a model does its share."""

from collections import Counter

from fixtures.scenario import scenario
from inferencebox.checks import between, equals
from inferencebox.traffic import burst
from inferencebox.waiting import confirm

REPLICAS, REQUESTS = 3, 300


@scenario("SCL-10", needs=("gateway", "mesh.traffic", "workloads"), sabotage="balancing.one-replica", seconds=12)
def test_each_replica_gets_its_share(tenant_a, own_model, gateway, story):
    """Of 300 requests to a model with 3 replicas, each replica gets between half of its even share and half more."""
    with story.given(f"a model with {REPLICAS} replicas"):
        model = own_model("tenant-a", {"v1": REPLICAS})
        for replica in model.replicas:
            replica.reset()
    with story.when(f"{REQUESTS} requests come, ten at a time"):
        window = burst(gateway.predict(model, tenant_a.token), REQUESTS, parallel=10)
        confirm(window.by_status, equals({"200": REQUESTS}))
    with story.then("each replica received its share"):
        counted = Counter({each.workload.name: len(each.arrivals(path="/v1/models/")) for each in model.replicas})
        even = REQUESTS / REPLICAS
        story.plot("requests by replica", _shares(counted))
        confirm(counted.total(), equals(REQUESTS))
        for replica, received in counted.items():
            with story(f"{replica}: {received} of {REQUESTS}"):
                confirm(received, between(0.5 * even, 1.5 * even))


def _shares(counted: Counter[str]) -> dict[str, object]:
    share = 1 / REPLICAS
    return {
        "kind": "split",
        "requests": counted.total(),
        "shares": {name: number / REQUESTS for name, number in counted.items()},
        "expected": dict.fromkeys(counted, share),
        "band": {name: [0.5 * share, 1.5 * share] for name in counted},
    }
