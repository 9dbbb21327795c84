"""Models that come and go with the traffic: none while nobody asks, as many as are needed, never more than allowed."""

import os
from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import Any

from kubernetes.utils import parse_quantity

from fixtures.gateway import IRIS, Gateway
from fixtures.scenario import scenario
from fixtures.services import COLD, ONE_AT_A_TIME, SOON_IDLE, OwnService, OwnServiceFactory, PodWatch
from fixtures.story import Story
from fixtures.tenants import Tenant
from fixtures.turns import Alone
from inferencebox.checks import answered, at_least, at_most, between, equals, every, that
from inferencebox.load import Load, load
from inferencebox.probes.http import Call
from inferencebox.traffic import Stream, Window, burst
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

NEEDS = ("gateway", "autoscaling", "pods")
LOAD_SECONDS = float(os.environ.get("IBOX_LOAD_SECONDS", "60"))
"""SCL-04: 60 s, in nightly runs 300 s."""
AT_WORK = (("x-stub-delay-ms", "200"),)
"""A model that is at work for 0.2 s per request, so that so many at the same time are what counts."""
ENOUGH = 5 * LOAD_SECONDS
"""Requests of which 1 % is more than one or two; how many more there are is a matter of how fast the machine is."""
BY_RESOURCES = {
    "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev",
    "autoscaling.knative.dev/window": "30s",
}
"""Asks for Kubernetes' own autoscaler, in place of Knative's, and that it heeds the last half minute: a pod that starts
is busy for a moment, and one more that came of that is gone again before anybody asks (else after five minutes)."""
ROUNDS, ROUND_SECONDS = 5, 60.0
"""How often, and how long, a model that scales by what it uses is put under load until it has grown. Usage is measured
every 15 s and judged every 15 s, and a busy machine takes its time to start a pod; nothing is promised of that."""
MOST = 3


def without_pods(service: OwnService, story: Story, within: float | None = None) -> None:
    """Wait until a model has no pods at all."""
    with story.given("nobody asks, and the model has no pods any more"):
        limit = Timeouts.current().scale_to_zero if within is None else within
        eventually(service.how_many, equals(0), within=limit, every=1.0)


@scenario("SCL-01", needs=NEEDS, sabotage="scaling.to-zero-disabled", seconds=150)
def test_an_idle_model_costs_no_pods(own_service: OwnServiceFactory, story: Story) -> None:
    """A model that nobody asks has no pods within 180 s, with the platform's own settings, and it is still Ready.

    The settings are those of SPEC 1.6: nobody asks for 60 s, grace of 30 s; then a pod has 30 s to end what it does.
    """
    with story.given("a model that may have no pods, and that has just answered"):
        service = own_service("tenant-a")
        confirm(service.how_many(), at_least(1))
    with PodWatch(service) as watch:
        with story.when("nobody asks"):
            eventually(service.how_many, equals(0), within=Timeouts.current().scale_to_zero, every=1.0)
        with story.then("it has no pods, and stays without"):
            consistently(service.how_many, equals(0), seconds=3)
    story.plot("pods of the idle model", watch.plot())
    with story.then("it counts as Ready all the same"):
        confirm(service.ready(), equals("True"))


@scenario("SCL-02", needs=NEEDS, sabotage="scaling.activator-stopped", seconds=120)
def test_the_first_request_wakes_a_sleeping_model(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, alone: Alone, story: Story
) -> None:
    """A real model without pods answers its first request within 60 s; once awake, 95 % of replies take at most 1 s.

    Woken when nothing else is going on: how long a pod takes to start is also what others leave it of the processors.
    """
    with story.given("a real model, of scikit-learn's"):
        serving = ["--kind", "sklearn", "--name", "{name}"]
        service = own_service("tenant-a", program="model", arguments=serving, annotations=SOON_IDLE)
    without_pods(service, story)
    ask = gateway.predict(service, tenant_a.token).with_(timeout=COLD)
    alone()
    with story.when("the first request comes"):
        first = confirm(ask.called("the first request")(), answered(200))
    with story.then("it is answered within 60 s, with a prediction"):
        confirm(first.elapsed, at_most(Timeouts.current().cold_start))
        confirm(first.json(), equals({"predictions": [0]}))
        story.note("cold start", f"{first.elapsed:.1f} s")
    with story.then("and from then on replies are quick"):
        warm = burst(ask, 40, parallel=2)
        confirm(warm.errors, equals(0))
        confirm(warm.p95, at_most(1.0))
        story.note("warm", str(warm))


@scenario("SCL-03", needs=NEEDS, sabotage="scaling.activator-stopped", group=ONE_AT_A_TIME, seconds=100)
def test_twenty_at_once_wake_a_model_and_all_are_answered(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """Of 20 requests that come at the same time to a model without pods, all are answered."""
    service = own_service("tenant-a", annotations=SOON_IDLE)
    without_pods(service, story)
    ask = gateway.predict(service, tenant_a.token).with_(timeout=COLD, fresh=True)
    with story.when("20 requests come at the same time"):
        window = burst(ask.called("a request to a model without pods"), 20)
        confirm(window.achieved_parallelism, equals(20))
    with story.then("each of them is answered"):
        confirm(window.by_status, equals({"200": 20}))
        story.note("the slowest", f"{max(sample.seconds for sample in window.samples):.1f} s")


@scenario(
    "SCL-04",
    needs=NEEDS,
    sabotage=("scaling.max-lifted", "scaling.autoscaler-stopped"),
    group=ONE_AT_A_TIME,
    seconds=100 + LOAD_SECONDS,
)
def test_load_brings_more_pods_but_never_too_many(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """Three times the users that a pod is meant for bring two pods or more, never more than allowed, 99 % good replies.

    One pod is meant for 4 requests at a time, 12 users ask without a pause; that would be worth 5 pods (a pod counts as
    full at 70 %), 3 are allowed. Counted are the pods that there are, and those that replied.
    """
    target, most = 4, 3
    with story.given(f"a model for {target} requests a pod at a time, with {most} pods at most"):
        service = own_service("tenant-c", scale_target=target, max_replicas=most)
    ask = gateway.predict(service, tenant_c.token, headers=AT_WORK).with_(timeout=30)
    with story.when(f"{3 * target} users ask for {LOAD_SECONDS:.0f} s"), PodWatch(service) as watch:
        seen = load(ask.called("a prediction under load"), users=3 * target, seconds=LOAD_SECONDS)
        confirm(seen.window.achieved_parallelism, equals(3 * target))
    story.plot("pods under load", watch.plot())
    story.plot("requests", seen.plot())
    with story.then("two pods or more replied"):
        confirm(len(seen.window.by_pod), at_least(2))
        confirm(watch.most_ready, at_least(2))
    with story.then(f"there were never more than {most}"):
        confirm(watch.most, at_most(most))
        confirm(len(seen.window.by_pod), at_most(most))
    with story.then("and 99 % of the replies or more were good"):
        confirm(seen.window.requests, at_least(ENOUGH))
        confirm(1 - seen.window.error_rate, at_least(0.99))


@scenario("SCL-05", needs=NEEDS, sabotage="scaling.to-zero-disabled", group=ONE_AT_A_TIME, seconds=200)
def test_after_the_load_the_pods_go_again(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """After load that took several pods a model is back at none within 240 s, with the platform's own settings."""
    service = own_service("tenant-c", scale_target=2, max_replicas=3)
    ask = gateway.predict(service, tenant_c.token, headers=AT_WORK).with_(timeout=30)
    with PodWatch(service) as watch:

        def pods_under_load() -> int:
            load(ask.called("a prediction under load"), users=8, seconds=20)
            return watch.most

        with story.given("load for as long as it takes to have two pods or more"):
            eventually(pods_under_load, at_least(2), within=LOAD_SECONDS)
        with story.when("it is over"):
            eventually(service.how_many, equals(0), within=Timeouts.current().scale_down, every=1.0)
        with story.then("no pod is left"):
            consistently(service.how_many, equals(0), seconds=3)
    story.plot("pods during and after the load", watch.plot())


@scenario(
    "SCL-06", needs=NEEDS, sabotage=("scaling.min-ignored", "scaling.max-lifted"), group=ONE_AT_A_TIME, seconds=120
)
def test_the_fewest_and_the_most_are_kept(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A model with one pod at least never has none, however long nobody asks; with one at most never two, whoever asks.

    How long: until another model that may have none, and that nobody has asked for as long, has none.
    """
    with story.given("three models: one pod at least, one at most, and one that may have none"):
        kept = own_service("tenant-a", min_replicas=1, max_replicas=2, annotations=SOON_IDLE)
        bounded = own_service("tenant-a", max_replicas=1, scale_target=1, annotations=SOON_IDLE)
        other = own_service("tenant-a", annotations=SOON_IDLE)
    ask = gateway.predict(bounded, tenant_a.token, headers=AT_WORK).with_(timeout=30)
    with story.given("the one with one at most is awake, however long the others took to come up"):
        confirm(ask.with_(timeout=Timeouts.current().cold_start)(), answered(200))
    with PodWatch(kept) as idle:
        with story.when("six users ask the one that may have one pod"), PodWatch(bounded) as busy:
            seen = load(ask.called("a prediction under load"), users=6, seconds=20)
        with story.when("nobody asks the others, so that the one that may has no pods"):
            eventually(other.how_many, equals(0), within=Timeouts.current().scale_to_zero, every=1.0)
    story.plot("pods of the one that nobody asks", idle.plot())
    story.plot("pods of the one that six users ask", busy.plot())
    with story.then("the one with one at least always had one"):
        confirm(idle.least, at_least(1))
        confirm(gateway.predict(kept, tenant_a.token)(), answered(200))
    with story.then("and the one with one at most never two"):
        confirm(busy.most, equals(1))
        confirm(seen.window.errors, equals(0))
        confirm(_who_replied(seen.window), ONE_AFTER_THE_OTHER)


def _who_replied(window: Window) -> list[str]:
    """The pods in the order of their replies, each as often as it took over from another."""
    replied = sorted((sample.end, sample.pod) for sample in window.samples if sample.pod)
    return [pod for pod, _ in groupby(pod for _, pod in replied)]


ONE_AFTER_THE_OTHER = that(
    "one pod's replies, or (if it fell asleep as the users came) then its successor's",
    lambda pods: 1 <= len(set(pods)) == len(pods),
)


@scenario("SCL-07", needs=NEEDS, sabotage="scaling.retention-ignored", seconds=180)
def test_a_model_that_is_to_linger_lingers(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """A model whose last pod is to be kept for longer has it at least 45 s longer than one without that wish.

    Kept for 90 s: Knative lets go of the other's last pod after the grace of 30 s at the latest, so 60 s apart. Both
    are asked until the same moment: a model is idle from its last request on, not from when somebody looks.
    """
    longer = {"autoscaling.knative.dev/scale-to-zero-pod-retention-period": "90s"}
    with story.given("two models alike, but that the last pod of one is to be kept for 90 s"):
        brief = own_service("tenant-a", annotations=SOON_IDLE)
        lingering = own_service("tenant-a", annotations=SOON_IDLE | longer)
    asks = [gateway.predict(service, tenant_a.token).with_(timeout=COLD) for service in (brief, lingering)]
    with story.given("both are asked until the same moment, and each has a pod"):
        with Stream(asks[0], rate=2) as one, Stream(asks[1], rate=2) as other:
            answers = [traffic.collect(10, within=COLD) for traffic in (one, other)]
        confirm([window.errors for window in answers], equals([0, 0]))
        confirm([service.how_many_live() for service in (brief, lingering)], every(at_least(1)))
    with PodWatch(brief) as soon, PodWatch(lingering) as late, story.when("nobody asks either of them"):
        for service in (brief, lingering):
            eventually(service.how_many_live, equals(0), within=Timeouts.current().scale_to_zero, every=0.5)
    story.plot("pods of the one", soon.plot())
    story.plot("pods of the one that lingers", late.plot())
    with story.then("the second one's pod went 45 s later, at least"):
        gone = [watch.none_since() for watch in (soon, late)]
        story.note("last pod gone", f"{gone[0]:.0f} s and {gone[1]:.0f} s after both were left alone")
        confirm(gone[1] - gone[0], at_least(45))


@scenario("SCL-11", needs=NEEDS, sabotage="scaling.target-ignored", group=ONE_AT_A_TIME, seconds=40)
def test_what_is_asked_of_the_autoscaler_reaches_it(own_service: OwnServiceFactory, story: Story) -> None:
    """What a model says of its scaling (target, metric, fewest, most) is what its PodAutoscaler is told, also later."""
    with story.given("a model for 7 requests a pod at a time, with 1 to 2 pods"):
        service = own_service("tenant-b", min_replicas=1, max_replicas=2, scale_target=7)
    with story.then("its PodAutoscaler says so"):
        eventually(partial(_told, service), equals(("7", "concurrency", "1", "2")))
    with story.when("it is changed to 9 requests a second, with 0 to 3 pods"):
        service.change(minReplicas=0, maxReplicas=3, scaleTarget=9, scaleMetric="rps")
    with story.then("the newest PodAutoscaler says that"):
        eventually(partial(_told, service), equals(("9", "rps", "0", "3")), within=Timeouts.current().first_ready)


def _told(service: OwnService) -> tuple[str, ...]:
    annotations = service.autoscalers()[-1]["metadata"]["annotations"]
    names = ("target", "metric", "min-scale", "max-scale")
    return tuple(str(annotations.get(f"autoscaling.knative.dev/{name}", "")) for name in names)


@scenario("SCL-15", needs=NEEDS, sabotage="scaling.activator-stopped", group=ONE_AT_A_TIME, seconds=100)
def test_ten_clients_wake_a_model_through_both_gateways(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_a: Tenant, story: Story
) -> None:
    """Ten clients who keep asking while a model wakes up, through both gateways, meet no 503 and no 504.

    Each asks on a connection of its own, five times, the first time while there is no pod.
    """
    service = own_service("tenant-a", annotations=SOON_IDLE)
    without_pods(service, story)
    ask = gateway.predict(service, tenant_a.token).with_(timeout=COLD, fresh=True)
    with story.when("ten clients ask, five times each"), PodWatch(service) as watch:
        window = burst(ask.called("a request while the model wakes up"), 50, parallel=10)
    story.plot("pods", watch.plot())
    with story.then("nobody meets a 503, a 504 or any other error"):
        confirm(window.by_status, equals({"200": 50}))
    with story.then("the first ten had waited for the model to wake up"):
        slow = sum(sample.seconds > 0.5 for sample in window.samples)
        confirm(slow, between(10, 50))


@scenario(
    "SCL-08",
    needs=(*NEEDS, "autoscaling.hpa"),
    sabotage=("scaling.max-of-one", "scaling.hpa-class-stopped"),
    group=ONE_AT_A_TIME,
    seconds=180,
)
def test_a_model_scales_by_its_cpu(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """A model that scales by CPU is given to Kubernetes' own autoscaler, and under CPU load has two pods or more.

    Its pod asks for a tenth of a core and is meant to use 60 % of what it asks for; twelve users who ask without a
    pause take all that it may have, which is three times that.
    """
    with story.given("a model that is meant to use 60 % of the CPU that it asks for"):
        service = own_service(
            "tenant-c",
            min_replicas=1,
            max_replicas=MOST,
            scale_target=60,
            scale_metric="cpu",
            cpu_request="100m",
            annotations=BY_RESOURCES,
        )
    ask = gateway.predict(service, tenant_c.token).with_(timeout=30)
    _grows_under_load(service, ask, "cpu", story)


@scenario(
    "SCL-09",
    needs=(*NEEDS, "autoscaling.hpa"),
    sabotage=("scaling.max-of-one", "scaling.metrics-server-stopped"),
    group=ONE_AT_A_TIME,
    seconds=180,
)
def test_a_model_scales_by_its_memory(
    own_service: OwnServiceFactory, gateway: Gateway, tenant_c: Tenant, story: Story
) -> None:
    """A model that scales by memory is given to Kubernetes' own autoscaler, and under load has two pods or more.

    Its pod is meant for 150 MiB, and has some 90 while nobody asks; twelve users send 7 MiB each, which the model
    holds for five seconds. (The target is an annotation: KServe 0.15 takes no `scaleTarget` above 100.)
    """
    with story.given("a model that is meant to use 150 MiB"):
        service = own_service(
            "tenant-c",
            min_replicas=1,
            max_replicas=MOST,
            scale_target=None,
            scale_metric="memory",
            annotations={**BY_RESOURCES, "autoscaling.knative.dev/target": "150"},
        )
    large = {"instances": [[*row] for row in IRIS], "parameters": {"note": "x" * (7 << 20)}}
    at_work = (("x-stub-delay-ms", "5000"),)
    ask = gateway.predict(service, tenant_c.token, headers=at_work, json=large).with_(timeout=60)
    _grows_under_load(service, ask, "memory", story)


def _grows_under_load(service: OwnService, ask: Call, resource: str, story: Story) -> None:
    autoscaler = f"serving.knative.dev/service={service.name}-predictor"

    def autoscalers() -> list[dict[str, Any]]:
        return service.kube.list("hpa", service.tenant, autoscaler).items

    def used() -> float | None:
        """Part of what its pods are meant to use, as the autoscaler sees it; none while it does not know."""
        return next((part for each in autoscalers() if (part := _part_used(each, resource)) is not None), None)

    with story.given("a HorizontalPodAutoscaler of its own, which sees that nobody asks, and leaves it one pod"):
        eventually(lambda: len(autoscalers()), equals(1))
        seen = eventually(used, that("less than what is meant", lambda part: part is not None and part < 1), within=180)
        story.note("of what is meant it uses", f"{100 * (seen or 0):.0f} %")
        eventually(service.how_many_live, equals(1), within=180, every=0.5)
    rounds: list[Load] = []
    replied: set[str] = set()
    with story.when("twelve users ask without a pause, until two pods reply"), PodWatch(service) as watch:
        while len(replied) < 2 and len(rounds) < ROUNDS:
            rounds.append(load(ask.called("a prediction under load"), users=12, seconds=ROUND_SECONDS))
            replied |= rounds[-1].window.by_pod.keys()
    story.plot("pods under load", watch.plot())
    story.plot("requests of the last minute", rounds[-1].plot())
    with story.then(f"two pods or more were ready, and never more than {MOST} there"):
        confirm(watch.most_ready, at_least(2))
        confirm(watch.most, at_most(MOST))
    with story.then("two or more replied, and nobody got an error"):
        confirm(len(replied), at_least(2))
        confirm(sum(each.window.errors for each in rounds), equals(0))


def _part_used(autoscaler: Mapping[str, Any], resource: str) -> float | None:
    """What an autoscaler last saw its pods use, divided by what they are meant to use."""
    (wanted,) = (each["resource"]["target"] for each in autoscaler["spec"]["metrics"])
    for each in autoscaler.get("status", {}).get("currentMetrics") or []:
        current = each.get("resource", {})
        if current.get("name") == resource:
            (measure,) = (name for name in wanted if name != "type")
            now = current.get("current", {}).get(measure)
            return None if now is None else float(parse_quantity(now) / parse_quantity(wanted[measure]))
    return None
