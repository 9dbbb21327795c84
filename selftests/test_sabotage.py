"""The sabotage catalogue against the scenarios; the runner with a fake platform and a fake suite."""

import copy
import datetime as dt
import json
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.probes.kubernetes import KubeReply
from inferencebox.sabotage import healthy as health
from inferencebox.sabotage import runner as running
from inferencebox.sabotage.breaking import Healing
from inferencebox.sabotage.catalogue import catalogue
from inferencebox.sabotage.healthy import HOURS, HealthyRun
from inferencebox.sabotage.mechanisms import Change, Create, Delete, NoEffect
from inferencebox.sabotage.outcomes import Outcome, Record
from inferencebox.sabotage.rules import RULES
from inferencebox.sabotage.runner import PATIENCE, Runner
from inferencebox.sabotage.settling import VIEWS
from inferencebox.sabotage.suite import Claim, Verdict, claims, verdicts
from inferencebox.sabotage.terminal import Terminal
from inferencebox.waiting import SCALE_VARIABLE

NOW = time.time()
PLATFORM = SimpleNamespace(instance="fake", provider="kind", release="2026.11", kubeconfig=Path("kubeconfig"))
GREEN, RED = Verdict("passed"), Verdict("failed", "wanted 403, got 200")


@pytest.fixture(scope="module")
def claimed():
    return claims()


# --- the catalogue and the scenarios


def test_every_sabotage_that_a_scenario_names_is_in_the_catalogue(claimed):
    known = catalogue().sabotages
    unknown = {claim.id: [name for name in claim.sabotage if name not in known] for claim in claimed.values()}
    assert {name: missing for name, missing in unknown.items() if missing} == {}


def test_every_sabotage_is_named_by_a_scenario_or_says_why_not_yet(claimed):
    named = {name for claim in claimed.values() for name in claim.sabotage}
    waiting = {name for name, sabotage in catalogue().sabotages.items() if sabotage.pending}
    assert set(catalogue().sabotages) - named <= waiting


def test_bystanders_and_canaries_are_scenarios(claimed):
    assert {*catalogue().bystanders, *catalogue().canaries} <= set(claimed)


def test_the_catalogue_uses_rules_and_views_that_there_are():
    for sabotage in catalogue().sabotages.values():
        assert set(sabotage.settle) <= set(VIEWS)
        assert set(sabotage.collateral) <= set(catalogue().bystanders)
        for mechanism in sabotage.how:
            if isinstance(mechanism, Change) and mechanism.rule:
                assert mechanism.rule in RULES


MESH = ("networking.istio.io", "security.istio.io", "telemetry.istio.io")


def seen_at(document):
    """Who is told of an object."""
    if document["kind"] == "BackendTrafficPolicy":
        return {"tier-1", "limiter"}
    group = document["apiVersion"].rpartition("/")[0]
    return {"mesh"} if group in MESH else {"tier-1"} if "envoyproxy" in group else {"tier-1", "mesh"}


def shipped(serverless):
    """The policies as they are before any test has made objects of its own."""
    batches = policies.batches("demo", serverless=serverless)
    proxy = policies.proxy("kubernetes", {"envoy_image": "envoy"})
    return [*(document for batch in batches for document in batch), *policies.telemetry(), *proxy]


def touched(mechanism, documents):
    """Which of these objects a mechanism changes, deletes or adds."""
    if isinstance(mechanism, Create):
        return list(mechanism.objects)
    found = [each for each in documents if each["kind"] == mechanism.kind and mechanism.concerns(each)]
    if isinstance(mechanism, Delete):
        return found
    broken = copy.deepcopy(found)
    for each in broken:
        mechanism.breaking(each)
    return [after for before, after in zip(found, broken, strict=True) if before != after]


@pytest.mark.parametrize("serverless", [False, True], ids=["replicas", "revisions"])
def test_what_must_arrive_at_the_proxies_changes_what_is_there_from_the_beginning(serverless):
    """Else nothing arrives, and the sabotage counts as one without effect."""
    documents, late = shipped(serverless), {}
    for name, sabotage in catalogue().sabotages.items():
        if all(
            isinstance(each, Change | Create | Delete) and getattr(each, "kind", "") != "Service"
            for each in sabotage.how
        ):
            views = {
                view for each in sabotage.how for document in touched(each, documents) for view in seen_at(document)
            }
            if missing := set(sabotage.settle) - views:
                late[name] = missing
    assert late == {}


def test_sabotages_are_chosen_by_name_or_beginning():
    assert [each.name for each in catalogue().choose(("quota.removed",))] == ["quota.removed"]
    assert {each.name.partition(".")[0] for each in catalogue().choose(("limits.*",))} == {"limits"}
    with pytest.raises(SetupProblem, match=r"no sabotage 'nothing'"):
        catalogue().choose(("nothing",))


# --- outcomes


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"verdicts": {"A": RED, "B": GREEN}}, "killed"),
        ({"verdicts": {"A": GREEN}}, "survived"),
        ({"verdicts": {"A": Verdict("error", "no platform")}}, "survived"),
        ({"verdicts": {"A": RED, "B": RED}}, "unrelated red"),
        ({"verdicts": {"A": RED, "B": RED}, "allowed": {"B": "uses it"}}, "killed"),
        ({"verdicts": {"A": RED}, "healing": "still refused"}, "not healed"),
        ({"problem": "it did not reach tier-1"}, "no effect"),
        ({"expected": []}, "nobody asked"),
    ],
)
def test_the_verdict_on_a_sabotage(changes, word):
    assert Outcome(**{"sabotage": "s", "expected": ["A"], **changes}).word == word


def test_outcomes_are_kept_for_the_report_and_for_going_on(tmp_path):
    outcome = Outcome("limits.lifted", ["TRF-10"], {"TRF-10": RED, "INF-01": GREEN})
    Record(tmp_path).add(outcome)
    drawn = yaml.safe_load((tmp_path / "kill-matrix.yaml").read_text())
    assert drawn["matrix"] == {"limits.lifted": {"TRF-10": "failed", "INF-01": "passed"}}
    assert drawn["expected"] == {"limits.lifted": ["TRF-10"]}
    assert drawn["first_line"] == {"limits.lifted": {"TRF-10": "wanted 403, got 200"}}
    assert Record.resume(tmp_path).outcomes == {"limits.lifted": outcome}


def test_of_a_scenario_with_several_tests_the_worst_counts(tmp_path):
    events = [
        {"event": "verdict", "scenario": "A", "verdict": word, "seconds": 1} for word in ("passed", "failed", "passed")
    ]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert verdicts(tmp_path)["A"].verdict == "failed"


def test_the_tests_of_a_scenario_that_did_not_notice_are_named(tmp_path):
    events = [
        {"event": "verdict", "scenario": "A", "item": f"t.py::test_a[{by}]", "verdict": word, "seconds": 1}
        for by, word in (("key", "passed"), ("token", "failed"), ("none", "not exercised"))
    ]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, events)))
    seen = verdicts(tmp_path)["A"]
    assert (seen.verdict, seen.stayed_green) == ("failed", ("[key]",))
    outcome = Outcome("s", ["A"], {"A": seen})
    Record(tmp_path).add(outcome)
    assert yaml.safe_load((tmp_path / "kill-matrix.yaml").read_text())["stayed_green"] == {"s": {"A": ["[key]"]}}
    assert Record.resume(tmp_path).outcomes == {"s": outcome}


def test_what_leaves_something_out_after_steps_that_held_has_passed_in_part(tmp_path):
    events = [
        {"event": "step", "scenario": "A", "item": "a"},
        {"event": "verdict", "scenario": "A", "item": "a", "verdict": "not exercised", "seconds": 1},
        {"event": "verdict", "scenario": "B", "item": "b", "verdict": "not exercised", "seconds": 1},
    ]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert {name: seen.verdict for name, seen in verdicts(tmp_path).items()} == {"A": "passed", "B": "not exercised"}


# --- the runner


class FakeSuite:
    """Scenarios that know what is broken."""

    def __init__(self, **noticing):
        self.claims = {
            name: Claim(name, f"t.py::{name}", name, tuple(what), 1, (f"t.py::{name}",))
            for name, what in noticing.items()
        }
        self.broken, self.runs, self.sick, self.slow = "", [], set(), set()

    def run(self, names, patience=1.0, settings=None):
        names = list(names)
        self.runs.append((self.broken, patience, names))
        return {name: self._verdict(name, patience) for name in names}

    def _verdict(self, name, patience):
        if name in self.sick or (name in self.slow and patience < 1):
            return Verdict("failed", "sick anyway")
        return RED if self.broken and self.broken in self.claims[name].sabotage else GREEN


@pytest.fixture
def run_all(monkeypatch, tmp_path):
    """Runs some sabotages of the catalogue over a fake suite."""

    def make(suite, *names, problem="", effect=True, there=True, healthy=None):
        @contextmanager
        def broken(_platform, sabotage):
            if not effect:
                raise NoEffect(f"{sabotage.name} did not reach tier-1")
            suite.broken, healing = sabotage.name, Healing()
            yield healing
            suite.broken, healing.problem = "", problem

        def attach(instance):
            if not there:
                raise SetupProblem(f"no platform {instance} is up", "run `ibox up`")
            return PLATFORM

        opened = []
        monkeypatch.setenv("IBOX_STATE", str(tmp_path / "state"))
        monkeypatch.setattr(running, "broken", broken)
        monkeypatch.setattr(running, "heal_leftovers", lambda _platform: 0)
        monkeypatch.setattr(running.providers, "attach", attach)
        monkeypatch.setattr(running.providers, "close_platform", opened.append)
        monkeypatch.setattr(running.providers, "open_platform", lambda *_: "new")
        record = Record.resume(tmp_path)
        console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
        runner = Runner(catalogue(), suite, record, Terminal(console), "fake", healthy=healthy)
        runner.run(catalogue().choose(names))
        return record.outcomes, opened, console.export_text()

    return make


STANDING = {"INF-01": (), "SEC-28": (), "SEC-01": (), "SEC-02": ()}


def test_a_sabotage_is_killed_by_those_who_promise_it(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    outcomes, opened, told = run_all(suite, "quota.removed")
    assert outcomes["quota.removed"].word == "killed"
    assert not opened
    assert "TEN-06 notices: wanted 403, got 200" in told


def test_healthy_first_and_canaries_after(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    run_all(suite, "quota.removed")
    broken = [run[0] for run in suite.runs if run[2]]
    assert broken == ["", "quota.removed", ""]
    assert suite.runs[-1][2] == ["SEC-01", "SEC-02"]


def test_a_scenario_that_is_red_anyway_is_left_out(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"], "TEN-07": ["quota.removed"]})
    suite.sick = {"TEN-07"}
    outcomes, _, told = run_all(suite, "quota.removed")
    assert outcomes["quota.removed"].expected == ["TEN-06"]
    assert outcomes["quota.removed"].left_out == {"TEN-07": "failed: sick anyway"}
    assert "TEN-07: sick anyway" in told


def test_a_scenario_that_needs_its_time_gets_it(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    suite.slow = {"TEN-06"}
    outcomes, _, _ = run_all(suite, "quota.removed")
    assert outcomes["quota.removed"].word == "killed"
    asked = {patience: names for broken, patience, names in suite.runs if broken}
    assert asked == {PATIENCE: ["INF-01", "SEC-28"], 1.0: ["TEN-06"]}


def test_who_does_not_notice_is_told(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    suite._verdict = lambda *_: GREEN
    outcomes, _, told = run_all(suite, "quota.removed")
    assert outcomes["quota.removed"].survived == ["TEN-06"]
    assert "TEN-06 does not notice (passed)" in told


def test_a_sabotage_without_effect_is_no_kill(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    outcomes, _, _ = run_all(suite, "quota.removed", effect=False)
    assert outcomes["quota.removed"].word == "no effect"


def test_a_platform_that_is_not_healed_is_brought_up_anew(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"], "TEN-07": ["limit-range.removed"]})
    names = ("quota.removed", "limit-range.removed")
    outcomes, opened, _ = run_all(suite, *names, problem="the quota is gone", there=False)
    assert outcomes["quota.removed"].word == "not healed"
    assert opened == ["fake", "fake"]


def test_somebody_elses_platform_that_is_not_healed_is_left_alone(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"], "TEN-07": ["limit-range.removed"]})
    with pytest.raises(
        SetupProblem, match=r"the platform fake is not as it was after quota\.removed: the quota is gone"
    ):
        run_all(suite, "quota.removed", "limit-range.removed", problem="the quota is gone")


def test_a_run_goes_on_where_it_ended(run_all):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"], "TEN-07": ["limit-range.removed"]})
    run_all(suite, "quota.removed")
    suite.runs.clear()
    outcomes, _, _ = run_all(suite, "quota.removed", "limit-range.removed")
    assert set(outcomes) == {"quota.removed", "limit-range.removed"}
    assert not [run for run in suite.runs if run[0] == "quota.removed"]


# --- the record of a healthy run


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Writes the record of a run on the fake platform, which is as old as `born` says."""

    def make(hours=1.0, born=24.0, instance="fake", provider="kind", release="2026.11", scale=1.0, **verdicts_):
        made = dt.datetime.fromtimestamp(NOW - born * 3600, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        tenants = {"items": [{"metadata": {"creationTimestamp": made}}]}
        kube = SimpleNamespace(list=lambda *_, **__: KubeReply(200, object=tenants))
        monkeypatch.setattr(health, "Kube", lambda _kubeconfig: kube)
        monkeypatch.delenv(SCALE_VARIABLE, raising=False)
        at = NOW - hours * 3600
        events = [
            {"event": "run-started", "at": at, "instance": instance, "timeout_scale": scale},
            {"event": "layer", "at": at, "layer": "platform", "provider": provider, "release": release},
            *(
                {"event": "verdict", "at": at, "scenario": name, "item": f"t.py::{name}", "verdict": word, "seconds": 1}
                for name, word in verdicts_.items()
            ),
        ]
        file = tmp_path / "healthy.jsonl"
        file.write_text("\n".join(map(json.dumps, events)))
        return file

    return make


def test_what_passed_in_the_record_is_not_run_on_the_healthy_platform(run_all, recorded):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"], "TEN-07": ["quota.removed"]})
    record = recorded(**{"TEN-06": "passed", "TEN-07": "error", "INF-01": "passed"})
    outcomes, _, told = run_all(suite, "quota.removed", healthy=record)
    assert outcomes["quota.removed"].word == "killed"
    first = next(names for broken, _, names in suite.runs if not broken)
    assert sorted(first) == ["INF-01", "SEC-01", "SEC-02", "SEC-28", "TEN-07"]
    assert "1 of 6 scenarios passed in" in told


def test_what_passed_in_the_record_gets_all_its_time(run_all, recorded):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    run_all(suite, "quota.removed", healthy=recorded(**{"TEN-06": "passed"}))
    assert [patience for broken, patience, names in suite.runs if broken and "TEN-06" in names] == [1.0]


def test_a_platform_that_is_no_longer_as_recorded_is_not_broken(run_all, recorded):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    suite.sick = {"SEC-01"}
    record = recorded(**{"TEN-06": "passed", "SEC-01": "passed"})
    with pytest.raises(SetupProblem, match=r"not as healthy as in .*: SEC-01 is failed: sick anyway"):
        run_all(suite, "quota.removed", healthy=record)


def test_a_record_stands_for_no_platform_that_is_yet_to_come(run_all, recorded):
    suite = FakeSuite(**STANDING, **{"TEN-06": ["quota.removed"]})
    with pytest.raises(SetupProblem, match="no platform fake is up"):
        run_all(suite, "quota.removed", there=False, healthy=recorded(**{"TEN-06": "passed"}))


def test_of_a_scenario_with_several_tests_the_record_must_have_each(recorded):
    claim = Claim("TEN-06", "t.py::TEN-06", "", (), 1, ("t.py::TEN-06", "t.py::TEN-06[other]"))
    run = HealthyRun.of(recorded(**{"TEN-06": "passed"}), PLATFORM)
    assert run.green([claim]) == {}


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"instance": "other"}, r"not of this platform \(instance other, .*; it is instance fake, "),
        ({"provider": "local"}, "not of this platform"),
        ({"release": "2025.06"}, "not of this platform"),
        ({"hours": HOURS + 2}, "14 hours old, 12 at most will do"),
        ({"hours": 3, "born": 2}, "older than the platform: it is of an earlier one"),
        ({"scale": 3.0}, "were given 3 times the usual time, now they would get 1"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(recorded, about, why):
    with pytest.raises(SetupProblem, match=why):
        HealthyRun.of(recorded(**{"TEN-06": "passed", **about}), PLATFORM)


def test_a_record_without_verdicts_is_refused(recorded):
    with pytest.raises(SetupProblem, match="no verdict on any scenario"):
        HealthyRun.of(recorded(), PLATFORM)
