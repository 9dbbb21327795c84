"""Rules, scrape configuration and dashboards, held against Prometheus' own promtool."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from management.tokens import QUERY

from fixtures.telemetry import in_a_drill, quickened, some
from inferencebox import policies
from inferencebox.paths import manifests_dir
from inferencebox.pki import Authority
from inferencebox.probes.prometheus import Vector, grown, nearly
from inferencebox.programs import provide
from inferencebox.programs.progress import Silent
from inferencebox.providers.kubernetes import makers, targets
from inferencebox.providers.local.telemetry import PROGRAMS, Telemetry
from inferencebox.release import DEFAULT_RELEASE, Release

FOLDER = manifests_dir() / "observability"


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = provide(Release.load(DEFAULT_RELEASE), ["prometheus"], Silent())
    return found["prometheus"].with_name("promtool")


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / "rules", tmp_path / "rules"))


def test_the_shipped_rules_do_at_full_length_what_they_promise(promtool: Path, rules: Path) -> None:
    done = run(promtool, "test", "rules", rules / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "text", "other"),
    [
        ("inference.yaml", "> 1", "> 3"),
        ("inference.yaml", "> 1", "> 0.1"),
        ("inference.yaml", "for: 2m", "for: 10s"),
        ("inference.yaml", "for: 1m", "for: 10s"),
        ("inference.yaml", "== 0", "== 2"),
        ("recording.yaml", "kserve_request_duration_seconds_bucket", "kserve_request_seconds_bucket"),
        ("recording.yaml", "5..", "[45].."),
        ("sla.yaml", "< 0.99", "< 0.8"),
    ],
)
def test_rules_that_say_something_else_are_noticed(
    promtool: Path, rules: Path, file: str, text: str, other: str
) -> None:
    path = rules / file
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, other))
    assert run(promtool, "test", "rules", rules / "tests.yaml").returncode != 0


def test_a_drill_divides_durations_and_changes_nothing_else() -> None:
    rule = {
        "type": "alerting",
        "name": "HighInferenceLatency",
        "query": "histogram_quantile(0.95, rate(x_bucket[5m])) > 1",
        "duration": 120,
        "labels": {"severity": "warning"},
        "annotations": {"summary": "s"},
    }
    assert quickened([rule], factor=6) == [
        {
            "alert": "HighInferenceLatency",
            "expr": "histogram_quantile(0.95, rate(x_bucket[50s])) > 1",
            "for": "20s",
            "labels": {"severity": "warning", "drill": "true"},
            "annotations": {"summary": "s"},
        }
    ]


def test_a_drill_does_not_raise_an_alert_for_what_starts_or_goes() -> None:
    rule = {
        "type": "alerting",
        "name": "ModelDown",
        "query": "up == 0",
        "duration": 60,
        "labels": {},
        "annotations": {},
    }
    assert quickened([rule], factor=12)[0]["for"] == "15s"


def test_a_drill_leaves_recorded_series_without_a_duration_alone() -> None:
    assert quickened([{"type": "recording", "name": "renamed", "query": "original"}]) == []


@pytest.mark.parametrize(
    ("promised", "query", "duration", "seconds"),
    [
        (480, "histogram_quantile(0.95, rate(x_bucket[5m])) > 1", 120, 100),
        (120, "up == 0", 60, 75),
    ],
)
def test_what_a_drill_takes_off_a_rule_is_taken_off_its_promise(
    promised: float, query: str, duration: float, seconds: float
) -> None:
    assert in_a_drill(promised, {"query": query, "duration": duration}, factor=12) == seconds


def test_a_quantile_of_nothing_is_no_data() -> None:
    key = (("model", "nobody-asked"),)
    assert some()(Vector("quantile", {key: 0.0})) is None
    assert some()(Vector("quantile", {key: float("nan")})) is not None


def test_the_configuration_that_local_makes_is_valid(promtool: Path, tmp_path: Path) -> None:
    authority = Authority.create("test")
    telemetry = Telemetry(tmp_path, {name: Path("/bin/true") for name in PROGRAMS})
    telemetry.prepare(authority.issue("prometheus"), authority.pair.certificate)
    done = run(promtool, "check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    routes = yaml.safe_load((tmp_path / "alertmanager.yaml").read_text())
    assert routes["route"]["receiver"] == "everybody"


def test_the_configuration_that_clusters_get_is_valid(promtool: Path, tmp_path: Path) -> None:
    made = {each["metadata"]["name"]: each.get("data", {}) for each in makers.telemetry()}
    file = tmp_path / "prometheus.yaml"
    file.write_text(made["prometheus"]["prometheus.yaml"])
    done = run(promtool, "check", "config", "--syntax-only", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made["prometheus-rules"] == {
        each.name: each.read_text() for each in (FOLDER / "rules").glob("*.yaml") if each.stem != "tests"
    }


@pytest.mark.parametrize("provider", ["local", "kubernetes"])
def test_every_job_knows_where_its_targets_are(provider: str) -> None:
    places = dict.fromkeys(("targets", "tier1", "istiod", "certificates"), "here")
    values = {"scrape_interval": "5s", "rules": "[]", "certificates": "here", "alertmanager": "there"}
    configuration = yaml.safe_load(policies.prometheus(provider, places, values))
    for job in configuration["scrape_configs"]:
        assert "found" not in job
        assert any(name.endswith("_configs") and "relabel" not in name for name in job), f"{job['job_name']}: nowhere"


def test_every_panel_of_a_dashboard_is_a_valid_query(promtool: Path, tmp_path: Path) -> None:
    for file in sorted((FOLDER / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        assert queries, f"{file.name} has no panel"
        entries = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
        rules = tmp_path / f"{file.stem}.yaml"
        rules.write_text(json.dumps({"groups": [{"name": file.stem, "rules": entries}]}))
        done = run(promtool, "check", "rules", rules)
        assert done.returncode == 0, f"{file.name}: {done.stdout}{done.stderr}"


def labels(name: str) -> tuple[tuple[str, str], ...]:
    return (("pod", name),)


def test_what_the_management_service_asks_is_told_by_process_and_publication(promtool: Path, tmp_path: Path) -> None:
    tokens = 'ai_model_tokens_total{job="tier-1", instance="%s", route="%s", publication="%s"}'
    told = {
        tokens % ("one:19001", "published-x/rule/0/host-a", "u"): "0+20x4",
        tokens % ("one:19001", "published-x/rule/0/host-b", "u"): "0+1x4",  # the same, at another host
        tokens % ("other:19001", "published-x/rule/0/host-a", "u"): "0+3x4",
        tokens % ("one:19001", "openai-x/rule/0/host-a", ""): "0+1000x4",  # with a token, not with a key
        'up{job="tier-1", instance="one:19001"}': "1x4",
        'up{job="tier-1", instance="other:19001"}': "1 1 1 1 0",
        'up{job="mesh", instance="third:15090"}': "1x4",
    }
    wanted = {
        '{instance="one:19001", publication="u"}': 84,
        '{instance="other:19001", publication="u"}': 12,
        '{instance="one:19001"}': 20,  # asked at that moment
        '{instance="other:19001"}': 0,  # in vain
    }
    tests = {
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": series, "values": values} for series, values in told.items()],
                "promql_expr_test": [
                    {
                        "expr": QUERY,
                        "eval_time": "20s",
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in wanted.items()],
                    }
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = run(promtool, "test", "rules", tmp_path / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_growth_starts_at_nothing_and_survives_a_restart() -> None:
    before, now = (
        {labels("a"): 10.0, labels("b"): 7.0, labels("gone"): 5.0},
        {labels("a"): 13.0, labels("b"): 2.0, labels("new"): 4.0},
    )
    assert grown(before, now) == {labels("a"): 3.0, labels("b"): 2.0, labels("new"): 4.0}


def test_nearly_is_a_share_of_what_is_wanted() -> None:
    assert nearly(200, 0.02) == (196, 204)
    assert nearly(5, 0) == (5, 5)


def pod(namespace: str, name: str, port: int, phase: str = "Running", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"ports": [{"containerPort": port}]}]},
        "status": {"phase": phase, "podIP": "10.244.0.9", "hostIP": "172.18.0.2"},
    }


def test_a_models_pod_is_scraped_as_its_tenants() -> None:
    served = {targets.SERVED: "iris", "app": "iris", "version": "v2"}
    found = targets.targets([pod("tenant-a", "iris-1", 8080, **served)])
    labels = {"namespace": "tenant-a", "pod": "iris-1", "app": "iris"}
    labels |= {"tenant": "tenant-a", "model": "iris", "version": "v2"}
    assert found["models"] == [{"targets": ["10.244.0.9:8080"], "labels": labels}]
    assert found["kubelet"] == [{"targets": ["172.18.0.2:10250"], "labels": {"node": "node-1"}}]


def test_what_is_no_model_gives_no_model_metrics() -> None:
    pods = [
        pod("tenant-a", "stub", 8080, **{targets.REPLICA: "stub-model", "app": "stub"}),
        pod("default", "jwt-server", 8080, app="jwt-server"),
        pod("tenant-a", "sidecar", 15090, **{targets.SERVED: "iris", "app": "iris"}),
    ]
    found = targets.targets(pods)
    assert found["models"] == []
    assert [each["labels"]["pod"] for each in found["proxies"]] == ["sidecar"]


def test_a_part_of_the_platform_is_no_tenants() -> None:
    found = targets.targets(
        [
            pod("istio-system", "istiod-1", 15014, app="istiod"),
            pod("envoy-gateway-system", "envoy-1", 19001, **{targets.TIER_1: "ai-inference-gateway"}),
            pod("knative-serving", "autoscaler-1", 9090, app="autoscaler"),
            pod("monitoring", "prometheus-1", 9090, app="prometheus"),
        ]
    )
    assert [found[name] for name in ("istiod", "tier-1")] == [
        [{"targets": ["10.244.0.9:15014"]}],
        [{"targets": ["10.244.0.9:19001"]}],
    ]
    labels = {"namespace": "knative-serving", "pod": "autoscaler-1", "app": "autoscaler"}
    assert found["knative"] == [{"targets": ["10.244.0.9:9090"], "labels": labels}]


def test_what_keeps_logs_is_scraped_on_every_node() -> None:
    parts = [pod("monitoring", name, port, app=name) for name, port in (("loki", 3100), ("log-collector", 8889))]
    found = targets.targets([*parts, pod("monitoring", "prometheus", 9090, app="prometheus")])
    assert [each["targets"] for each in found["logs"]] == [["10.244.0.9:3100"], ["10.244.0.9:8889"]]


def test_targets_come_and_go_with_their_pods(tmp_path: Path) -> None:
    made = [pod("tenant-a", f"iris-{number}", 15090, app="iris") for number in (1, 2)]
    for number, each in enumerate(made):
        each["metadata"]["uid"] = str(number)
    ended = {**made[1], "status": {**made[1]["status"], "phase": "Succeeded"}}

    class Played:
        def pods(self) -> tuple[list[Any], str]:
            return made[:1], "7"

        def changes(self, since: str) -> Iterator[tuple[str, Any]]:
            assert since == "7"
            yield "ADDED", made[1]
            seen.append(names())
            yield "MODIFIED", ended
            seen.append(names())
            yield "DELETED", made[0]
            seen.append(names())

    def names() -> list[str]:
        return [each["labels"]["pod"] for each in json.loads((tmp_path / "proxies.json").read_text())]

    seen: list[list[str]] = []
    targets.follow(Played(), tmp_path)
    assert seen == [["iris-1", "iris-2"], ["iris-1"], []]
