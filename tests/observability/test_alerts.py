"""Alert round trips: a fault, the alert pending, firing with its labels, told to both sinks once, healed, told again.

At full length a latency alert takes minutes, so the round trips use a drill: the shipped rules with their durations
divided by twelve (fixtures/telemetry.py), nothing else changed. The shipped rules themselves are shown loaded (ALR-01)
and are unit-tested at full length with promtool (selftests).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import yaml

from fixtures.gateway import Gateway
from fixtures.models import OwnModel, OwnModelFactory
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.telemetry import Course, Notification, OwnIris, Sinks, in_a_drill, is_state, own_prediction, some
from fixtures.tenants import Tenant
from inferencebox.checks import answered, equals, that
from inferencebox.paths import manifests_dir
from inferencebox.probes.http import Call
from inferencebox.probes.prometheus import Alert, Prometheus
from inferencebox.traffic import stream
from inferencebox.waiting import Timeouts, confirm, consistently, eventually, timeout_scale

NEEDS = ("prometheus", "alertmanager", "models")
CHANNELS = ("slack", "email")
PROMISED = {"HighInferenceLatency": Timeouts().latency_alert, "ModelDown": Timeouts().down_alert}
"""ALR-02, ALR-03: within how many seconds of the fault the shipped rules fire."""
UNPROMISED_SECONDS = 90.0
"""For an SLA's breach to fire, and for an alert to be over: no promise says how soon."""
CALM_RATE = 2.0
"""Requests a second to each tenant's model while the platform is watched: every rule has something to look at, and two
cores have little to do."""


@contextlib.contextmanager
def asked(call: Call, rate: float = 3) -> Iterator[None]:
    """Somebody keeps asking meanwhile, a few times a second."""
    with stream(call, rate=rate):
        yield


def told_once(sinks: Sinks, course: Course, resolved: bool) -> Callable[[], dict[str, int]]:
    """A probe: how many notifications of this course's alert each channel has had."""

    def ask() -> dict[str, int]:
        found = {channel: matching(sinks, course, channel, resolved) for channel in CHANNELS}
        return {channel: len(notifications) for channel, notifications in found.items()}

    return ask


def matching(sinks: Sinks, course: Course, channel: str, resolved: bool) -> list[Notification]:
    told = sinks.told(course.model, since=course.began, channel=channel, name=course.name)()
    return [each for each in told if each.resolved == resolved]


def watched(model: OwnModel, metrics: Prometheus) -> Course:
    """Each replica of a model is scraped, and nothing is said of it: what follows begins from there."""
    up = metrics.ask(f'up{{job="kserve-model", model="{model.name}"}} == 1')
    eventually(up, some(len(model.replicas)), within=Timeouts.current().metric)
    eventually(Course(metrics, "ModelDown", model.name).state, is_state("inactive"), within=Timeouts.current().metric)
    return Course(metrics, "ModelDown", model.name)


def fires_within(course: Course) -> float:
    """Seconds after the fault: what is promised of the shipped rule, as it is in a drill."""
    (rule,) = [rule for rule in course.metrics.rules()["inference.rules"] if rule["name"] == course.name]
    return timeout_scale() * in_a_drill(PROMISED[course.name], rule)


def fired_and_told(course: Course, sinks: Sinks, story: Story, within: float) -> None:
    """The alert goes pending and fires, within so many seconds of the fault, and each sink is told once."""
    with story.then("the alert becomes pending"):
        eventually(course.state, is_state("pending", "firing"), within=course.left(within, since="fault"), every=0.5)
        course.mark("pending")
    with story.then(f"and fires, {within:.0f} s after the fault at the latest"):
        eventually(course.state, is_state("firing"), within=course.left(within, since="fault"), every=0.5)
        course.mark("firing")
    with story.then("Slack and the mailbox are told, each once"):
        eventually(told_once(sinks, course, resolved=False), equals(dict.fromkeys(CHANNELS, 1)), within=40, every=1)
        for channel in CHANNELS:
            course.mark(channel, matching(sinks, course, channel, resolved=False)[0].at)


def resolved_and_told(course: Course, sinks: Sinks, story: Story) -> None:
    """The alert is over, and each sink is told once more."""
    with story.then("the alert is over"):
        eventually(course.state, is_state("inactive"), within=UNPROMISED_SECONDS, every=0.5)
        course.mark("resolved")
    with story.then("and Slack and the mailbox are told that too"):
        eventually(told_once(sinks, course, resolved=True), equals(dict.fromkeys(CHANNELS, 1)), within=40, every=1)
        course.mark("told", matching(sinks, course, "slack", resolved=True)[0].at)
    assert told_once(sinks, course, resolved=False)() == dict.fromkeys(CHANNELS, 1), "firing was told more than once"
    story.plot(f"{course.name}: from fault to all-clear", course.plot())


@scenario("ALR-01", needs=("prometheus", "models"), sabotage="alerts.threshold-raised", seconds=4)
def test_both_rules_are_loaded_as_promised(
    gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, story: Story
) -> None:
    """HighInferenceLatency and ModelDown are loaded word by word, healthy, and what they look at exists."""
    shipped = yaml.safe_load((manifests_dir() / "observability" / "rules" / "inference.yaml").read_text())
    promised = {
        "HighInferenceLatency": (
            "histogram_quantile(0.95, rate(kserve_request_duration_seconds_bucket[5m])) > 1",
            120,
            "warning",
        ),
        "ModelDown": ('up{job="kserve-model"} == 0', 60, "critical"),
    }
    with story("The group inference.rules has both, as the specification writes them"):
        loaded = {rule["name"]: rule for rule in metrics.rules()["inference.rules"]}
        seen = {name: (rule["query"], rule["duration"], rule["labels"]["severity"]) for name, rule in loaded.items()}
        assert seen == promised, f"wanted {promised}, got {seen}"
        assert {rule["alert"] for group in shipped["groups"] for rule in group["rules"]} == set(promised)
    with story("Prometheus can evaluate them"):
        assert {rule["health"] for rule in loaded.values()} == {"ok"}, (
            f"{[rule.get('lastError') for rule in loaded.values()]}"
        )
    with story.given("a model that has been asked something, for one that never was counts nothing"):
        eventually(gateway.predict(tenant_a.model, tenant_a.token), answered(200))
    with story("Every selector in them matches series"):
        for selector in (
            "request_predict_seconds_bucket",
            "kserve_request_duration_seconds_bucket",
            'up{job="kserve-model"}',
        ):
            eventually(metrics.ask(selector), some(), within=Timeouts.current().metric, every=2)


@scenario("ALR-02", needs=NEEDS, sabotage=("alerts.threshold-raised", "alerts.recording-lost"), seconds=110)
def test_a_slow_model_raises_a_warning_and_an_all_clear(
    own_iris: OwnIris, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, sinks: Sinks,
    drill: Callable[[], None], story: Story,
) -> None:  # fmt: skip
    """A model that takes 1.5 s raises HighInferenceLatency as a warning, and an all-clear when it is quick again."""
    model = own_iris("own-slow")
    ask = gateway.predict(model, tenant_a.token)
    drill()
    course = Course(metrics, "HighInferenceLatency", model.name)
    with asked(ask):
        with story.when("the model takes 1.5 s for each prediction"):
            model.replicas[0].fault(predict_delay_ms=1500)
            course.mark("fault")
        fired_and_told(course, sinks, story, fires_within(course))
        with story("It is a warning, of the tenant and the model concerned"):
            labels = course.alerts()[0].labels
            assert (labels["severity"], labels["tenant"]) == ("warning", "tenant-a"), f"labels: {labels}"
        with story.when("the model is quick again"):
            model.replicas[0].heal()
            course.mark("healed")
        resolved_and_told(course, sinks, story)


@scenario("ALR-03", needs=NEEDS, sabotage=("alerts.model-down-lost", "alerts.route-cut"), seconds=70)
def test_a_model_without_metrics_is_reported_as_down(
    own_iris: OwnIris, metrics: Prometheus, sinks: Sinks, drill: Callable[[], None], story: Story
) -> None:
    """A replica that is alive but cannot be scraped raises ModelDown, critical, and an all-clear afterwards."""
    model = own_iris("own-mute")
    drill()
    course = watched(model, metrics)
    with story.when("its metrics break while it goes on answering"):
        model.replicas[0].fault(metrics=0)
        course.mark("fault")
    fired_and_told(course, sinks, story, fires_within(course))
    with story("It is critical, and names the replica"):
        labels = course.alerts()[0].labels
        assert (labels["severity"], labels["pod"]) == ("critical", model.pods[0].name), f"labels: {labels}"
    with story.when("they are mended"):
        model.replicas[0].heal()
        course.mark("healed")
    resolved_and_told(course, sinks, story)


@scenario("ALR-04", needs=NEEDS, sabotage=("alerts.threshold-zero", "alerts.model-down-lost"), seconds=60)
def test_no_alert_without_a_reason(
    own_iris: OwnIris, gateway: Gateway, tenants: tuple[Tenant, ...], tenant_a: Tenant, metrics: Prometheus,
    drill: Callable[[], None], calm_minutes: float, story: Story,
) -> None:  # fmt: skip
    """A model without replicas is not down, and 0.2 s are not slow.

    That is watched for 40 s of a drill, which are eight minutes of the shipped rules; that an alert would be seen, a
    replica shows that cannot be scraped meanwhile. With `--calm-minutes` the shipped rules, in real time, must have
    nothing to say of the whole platform under load either.
    """
    model, gone = own_iris("own-brisk", replicas=2), own_iris("own-gone")
    brisk, mute = model.replicas
    drill()
    with story.given("both are watched"):
        watched(gone, metrics)
        course = watched(model, metrics)
    with story.when("one is scaled to no replica at all; the other takes 0.2 s, a replica of it without metrics"):
        gone.platform.remove_workloads(gone.pods)
        brisk.fault(predict_delay_ms=200)
        mute.fault(predict_delay_ms=200, metrics=0)
        course.mark("fault")
    with (
        story.then("nothing else is said of either, for as long as an alert would take"),
        asked(gateway.predict(model, tenant_a.token)),
    ):
        mine, deserved = (model.name, gone.name), ("ModelDown", mute.workload.name)
        consistently(
            lambda: [
                each.name
                for each in metrics.alerts(drill="true")
                if each.state == "firing"
                and each.labels.get("model") in mine
                and (each.name, each.labels.get("pod")) != deserved
            ],
            equals([]),
            seconds=40,
            every=2,
        )
    with story.then("while the replica without metrics is down"):
        eventually(course.state, is_state("firing"), within=course.left(fires_within(course), since="fault"))
    with story("and the model without replicas has none that could be"):
        confirm(metrics.query(f'up{{job="kserve-model", model="{gone.name}"}}').series, equals({}))
    with story("and the slow one was seen as it was"):
        slowest = f'histogram_quantile(0.95, rate(kserve_request_duration_seconds_bucket{{model="{model.name}"}}[25s]))'
        eventually(metrics.ask(slowest), that("0.2 to 1", lambda seen: 0.2 <= seen.total < 1), within=20, every=2)
    if calm_minutes:
        calm_under_load(gateway, tenants, metrics, calm_minutes, story)


@pytest.fixture
def calm_minutes(pytestconfig: pytest.Config) -> float:
    """How long the whole platform is watched; 0: not at all."""
    return float(pytestconfig.getoption("--calm-minutes"))


def calm_under_load(
    gateway: Gateway, tenants: Sequence[Tenant], metrics: Prometheus, minutes: float, story: Story
) -> None:
    """No shipped alert fires for the platform's own models or parts while tenants ask all of them."""
    with contextlib.ExitStack() as load:
        with story.given(f"each tenant's model is asked {CALM_RATE:g} times a second, from now on"):
            streams = [
                load.enter_context(stream(own_prediction(gateway, tenant), rate=CALM_RATE)) for tenant in tenants
            ]
        with story.then(f"for {minutes:g} minutes nothing fires"):
            consistently(
                lambda: [str(alert) for alert in metrics.alerts() if is_about_the_platform(alert)],
                equals([]),
                seconds=60 * minutes,
                every=2,
            )
        windows = {tenant.name: each.window() for tenant, each in zip(tenants, streams, strict=True)}
    with story("and the models had been asked all the while, and had answered"):
        story.note("load", "\n".join(f"{name}: {window}" for name, window in windows.items()))
        for name, window in windows.items():
            assert window.requests >= 0.9 * CALM_RATE * 60 * minutes, f"{name}: {window}"
            assert window.errors == 0, f"{name}: {window}"


def is_about_the_platform(alert: Alert) -> bool:
    """Whether a shipped alert fires for something that no scenario has brought."""
    is_own = alert.labels.get("model", "").startswith("own-")
    return alert.state == "firing" and "drill" not in alert.labels and not is_own


@scenario("ALR-05", needs=NEEDS, sabotage="alerts.route-cut", seconds=60)
def test_slack_is_told_name_severity_and_summary(
    own_iris: OwnIris, metrics: Prometheus, sinks: Sinks, drill: Callable[[], None], story: Story
) -> None:
    """Slack is told which alert it is, how severe and about what, and when it is over."""
    says_what_it_should("slack", "own-slack", own_iris, metrics, sinks, drill, story)


@scenario("ALR-06", needs=NEEDS, sabotage="alerts.mail-cut", seconds=60)
def test_the_mailbox_is_told_the_same(
    own_iris: OwnIris, metrics: Prometheus, sinks: Sinks, drill: Callable[[], None], story: Story
) -> None:
    """The platform team's mailbox is told which alert it is, how severe and about what, and when it is over."""
    says_what_it_should("email", "own-mail", own_iris, metrics, sinks, drill, story)


def says_what_it_should(
    channel: str, name: str, own_iris: OwnIris, metrics: Prometheus, sinks: Sinks,
    drill: Callable[[], None], story: Story,
) -> None:  # fmt: skip
    model = own_iris(name)
    drill()
    course = watched(model, metrics)
    with story.when("a model cannot be scraped"):
        model.replicas[0].fault(metrics=0)
    for word, resolved in (("FIRING", False), ("RESOLVED", True)):
        with story.then(f"a message says {word.lower()}, the alert's name, its severity and what it is about"):
            eventually(
                lambda resolved=resolved: len(matching(sinks, course, channel, resolved)), equals(1), within=90, every=1
            )
            message = matching(sinks, course, channel, resolved)[0]
            story.note(f"as it came by {channel}", f"{message.title}\n\n{message.text}")
            assert message.title.strip() == f"[{word}] ModelDown (critical)", f"title: {message.title}"
            assert f"{model.name} of tenant-a is down" in message.text, f"text: {message.text}"
        model.replicas[0].heal()


@scenario("ALR-07", needs=NEEDS, sabotage="alerts.ungrouped", seconds=70)
def test_two_replicas_and_a_repetition_are_one_message(
    own_iris: OwnIris, metrics: Prometheus, sinks: Sinks, drill: Callable[[], None], story: Story
) -> None:
    """Two replicas of one model that are down are one message, and going on being down is none."""
    model = own_iris("own-pair", replicas=2)
    drill()
    course = watched(model, metrics)
    with story.when("both replicas cannot be scraped"):
        for replica in model.replicas:
            replica.fault(metrics=0)
        course.mark("fault")
    fired_and_told(course, sinks, story, fires_within(course))
    with story.then("both are firing"):
        eventually(lambda: len(course.alerts()), equals(2), within=20, every=1)
    with story.then("and nobody is told again, while they go on"):
        once = dict.fromkeys(CHANNELS, 1)
        consistently(
            told_once(sinks, course, resolved=False),
            that("no more than once each", lambda n: n == once),
            seconds=20,
            every=2,
        )


@scenario(
    "ALR-08",
    needs=(*NEEDS, "gateway"),
    sabotage=("metrics.tier-1-uncounted", "metrics.failures-unseen", "alerts.sla-lowered"),
    seconds=100,
)
def test_a_broken_sla_alerts_by_itself(
    own_model: OwnModelFactory, gateway: Gateway, tenant_a: Tenant, metrics: Prometheus, sinks: Sinks,
    drill: Callable[[], None], story: Story,
) -> None:  # fmt: skip
    """A model that fails requests breaks its SLA, and the platform's people are told without anybody asking."""
    model = own_model("tenant-a")
    good = gateway.predict(model, tenant_a.token)
    drill()
    course = Course(metrics, "SLABreach", model.name)
    failing = threading.Event()

    def ask() -> object:
        return (good.adding(("x-stub-status", "501")) if failing.is_set() and time.time() % 2 < 1 else good)()

    with stream(ask, rate=4, ok=that("anything", lambda seen: True)):  # type: ignore[arg-type]
        with story.given("it answers everything"):
            eventually(
                metrics.ask(f'drill_sla_compliance_ratio{{model="{model.name}"}} == 1'), some(), within=60, every=1
            )
        with story.when("it fails half of its requests"):
            failing.set()
            course.mark("fault")
        fired_and_told(course, sinks, story, UNPROMISED_SECONDS)
        with story.when("it answers everything again"):
            failing.clear()
            course.mark("healed")
        resolved_and_told(course, sinks, story)
