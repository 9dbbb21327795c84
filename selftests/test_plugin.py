"""The pytest side: verdicts, selection, one platform per run, parallel runs, exit codes, and what the terminal says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inferencebox import command_line, journal
from inferencebox.paths import project_root

pytest_plugins = ["pytester"]

CONFTEST = """
import sys
sys.path[:0] = [{root!r}, {selftests!r}]
import fake_provider
fake_provider.install()
from conftest_of_the_suite import pytest_plugins
"""

HEAD = """
import time
import pytest
from fixtures.scenario import scenario, not_exercised
from inferencebox import evidence
from inferencebox.errors import SetupProblem

def promise(name, **more):
    return scenario(name, why_no_sabotage="selftest", **more)

"""

MIXED = """
@promise("SEC-01", needs=("gateway",))
def test_holds(platform, story):
    '''A valid token opens the model.'''
    with story.when("asked"):
        evidence.exchange({"method": "GET", "url": "http://x/"}, {"status": 200}, "curl http://x/")

@promise("SEC-02", needs=("gateway",))
def test_broken(platform, story):
    '''No token is refused.'''
    with story("asked without a token"):
        assert 200 == 401, "status 200 instead of 401"

@promise("TRF-30", needs=("autoscaling",))
def test_canary_split(platform):
    '''The canary gets its share.'''

@promise("TEN-01")
def test_environment(platform):
    '''Tenants are there.'''
    raise SetupProblem("no room", "make room")

@pytest.fixture
def broken():
    raise ValueError("fixture broke")

@promise("OBS-01")
def test_broken_fixture(platform, broken):
    '''Tools are healthy.'''

@promise("SCL-01")
def test_runtime_gap(platform):
    '''Idle models have no pods.'''
    not_exercised("no autoscaler was found")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the fake platform lives."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("FAKE_PLATFORM", str(folder))
    monkeypatch.setenv("IBOX_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    return folder


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, home: Path) -> Run:
    """Runs scenarios given as text, in a process of their own, with the fake platform."""
    root = project_root()
    pytester.makeconftest(CONFTEST.format(root=str(root), selftests=str(root / "selftests")))
    pytester.makepyfile(
        conftest_of_the_suite=(root / "conftest.py").read_text().replace("__file__", repr(str(root / "x")))
    )

    def run(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_story=HEAD + text)
        command = command_line.pytest("-p", "no:randomly", "-p", "no:cacheprovider", *arguments)
        return pytester.run(*command, "test_story.py")

    return run


def verdicts(pytester: pytest.Pytester) -> dict[str, str]:
    return {str(e["scenario"]): str(e["verdict"]) for e in events(pytester) if e["event"] == "verdict"}


def events(pytester: pytest.Pytester) -> list[dict[str, object]]:
    return journal.read(pytester.path / "reports")


def calls(home: Path) -> list[str]:
    return (home / "calls.txt").read_text().split() if (home / "calls.txt").exists() else []


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_each_verdict_and_one_platform(
    run: Run, pytester: pytest.Pytester, home: Path, workers: tuple[str, ...]
) -> None:
    result = run(MIXED, *workers)
    assert verdicts(pytester) == {
        "SEC-01": "passed",
        "SEC-02": "failed",
        "TRF-30": "not exercised",
        "TEN-01": "error",
        "OBS-01": "error",
        "SCL-01": "not exercised",
    }
    assert calls(home) == ["open", "close"]
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        [
            "✔ SEC-01 A valid token opens the model *s",
            "✘ SEC-02 No token is refused  failed *",
            "*asked without a token: status 200 instead of 401*test_story.py:*",
            "○ TRF-30 The canary gets its share  not exercised: no kubelet: nothing runs in pods",
            "! TEN-01 *error*",
            "*no room. Fix: make room*",
            "  OBS-01: ValueError: fixture broke",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    first, last = events(pytester)[0], events(pytester)[-1]
    assert (first["event"], last["event"]) == ("run-started", "run-finished")
    assert last["counts"] == {"passed": 1, "failed": 1, "not exercised": 2, "error": 2}


GAPS = """
import fixtures.gaps
from inferencebox.gaps import KnownGap

def entry(version):
    return KnownGap(scenario="SEC-07", layer="istio", versions=[version], reason="listed early", upstream="https://example.org/1")

@pytest.fixture(autouse=True)
def entries(monkeypatch):
    version = Release.load("2026.11").layers["istio"].version
    found = {{"open": entry(version), "elsewhere": entry("v0.0.1")}}
    monkeypatch.setattr(fixtures.gaps, "known_gaps", lambda: found)

@promise("SEC-07")
def test_list(platform, known_gap):
    '''Nobody lists.'''
    with known_gap("{name}"):
        assert {answer} == 403, "status 200 instead of 403"
"""


@pytest.mark.parametrize(
    ("name", "answer", "verdict", "code", "line"),
    [
        (
            "open",
            200,
            "known gap",
            0,
            "*status 200 instead of 403. Known: istio *: listed early (https://example.org/1)*",
        ),
        ("open", 403, "error", 2, "*The known gap open is closed*Fix: remove open from manifests/known-gaps.yaml*"),
        ("elsewhere", 200, "failed", 1, "*status 200 instead of 403*"),
        ("elsewhere", 403, "passed", 0, "*Nobody lists*"),
    ],
)
def test_a_known_gap_is_expected_with_its_version_and_as_long_as_it_is_there(
    run: Run, pytester: pytest.Pytester, name: str, answer: int, verdict: str, code: int, line: str
) -> None:
    head = "from inferencebox.release import Release\n"
    result = run(head + GAPS.format(name=name, answer=answer))
    assert verdicts(pytester) == {"SEC-07": verdict}
    assert result.ret == code
    result.stdout.fnmatch_lines([line])


def test_steps_exchanges_and_diagnosis_are_recorded(run: Run, pytester: pytest.Pytester) -> None:
    run(MIXED, "-k", "SEC")
    seen = events(pytester)
    step = next(e for e in seen if e["event"] == "step" and e["title"] == "asked")
    assert step["kind"] == "when"
    assert next(e for e in seen if e["event"] == "exchange")["step"] == step["step"]
    diagnosis = next(e for e in seen if e["event"] == "attachment")
    assert (diagnosis["scenario"], diagnosis["kind"]) == ("SEC-02", "diagnosis")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("-k", "canary"), {"TRF-30"}),
        (("-k", "autoscaling"), {"SCL-01"}),
        (("-k", "multitenancy"), {"TEN-01"}),
        (("-k", "observability"), {"OBS-01"}),
        (("-k", "security"), {"SEC-01", "SEC-02"}),
        (("-k", "SEC-02"), {"SEC-02"}),
        (("-m", "tenancy"), {"TEN-01"}),
        (("-m", "roadmap"), {"TRF-30"}),
        (("-m", "demo and security"), {"SEC-01", "SEC-02"}),
    ],
)
def test_scenarios_are_found_by_words(
    run: Run, pytester: pytest.Pytester, words: tuple[str, ...], wanted: set[str]
) -> None:
    run(MIXED, *words)
    assert set(verdicts(pytester)) == wanted


def test_nothing_starts_without_need(run: Run, pytester: pytest.Pytester, home: Path) -> None:
    assert run(MIXED, "--collect-only").ret == 0
    assert run(MIXED, "--collect-only", "-n", "2").ret == 0
    assert run("def test_plain(): pass").ret == 0
    assert calls(home) == []
    assert not (pytester.path / "reports").exists()
    assert run("@promise('OPS-11')\ndef test_manifests():\n    pass").ret == 0
    assert calls(home) == []
    assert verdicts(pytester) == {"OPS-11": "passed"}


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
@pytest.mark.parametrize(
    ("asked", "wish", "parts"),
    [
        ("needs=('gateway',)", "yes", []),
        ("needs=('jaeger',)", "yes", ["telemetry"]),
        ("wants=('prometheus',)", "yes", ["telemetry"]),
        ("needs=('loki',)", "yes", ["logs"]),
        ("needs=('loki',)", "if-built", []),
    ],
)
def test_only_what_a_chosen_scenario_needs_is_brought_up(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, asked: str, wish: str, parts: list[str], workers: tuple[str]
) -> None:
    monkeypatch.setenv("IBOX_CACHE", str(home / "empty"))
    run(f"@promise('OPS-11', {asked})\ndef test_it(platform):\n    pass", f"--logs={wish}", *workers)
    assert json.loads((home / "parts.json").read_text()) == parts


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_platform_that_does_not_come_up(run: Run, pytester: pytest.Pytester, home: Path, workers: tuple[str]) -> None:
    (home / "broken").touch()
    result = run(MIXED + "\n@promise('OPS-11')\ndef test_manifests():\n    pass\n", *workers)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["! The platform did not come up. etcd did not start. Fix: look into etcd.log"])
    found = verdicts(pytester)
    assert found.pop("OPS-11") == "passed"
    assert set(found.values()) == {"error"}
    assert calls(home) == ["open"]


def test_death_of_the_platform_is_not_a_broken_promise(run: Run, pytester: pytest.Pytester) -> None:
    result = run(
        """
@promise("SEC-01")
def test_dies(platform):
    platform._stop("gateway")
    assert False, "no reply"
""",
    )
    assert verdicts(pytester) == {"SEC-01": "error"}
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*Part of the platform did not stay ready: gateway; then: no reply*"])


def test_what_the_test_stopped_itself_did_not_die(run: Run, pytester: pytest.Pytester) -> None:
    run(
        """
@promise("SEC-16", exclusive=True)
def test_stops(platform):
    platform.stop("jwt-server")
    assert False, "token refused"
"""
    )
    assert verdicts(pytester) == {"SEC-16": "failed"}


EXCLUSIVE = """
import pathlib, os
LOG = pathlib.Path(os.environ["FAKE_PLATFORM"]) / "log"

def show(name):
    with LOG.open("a") as file:
        file.write(f"{name} in\\n")
    time.sleep(0.3)
    with LOG.open("a") as file:
        file.write(f"{name} out\\n")

@promise("SEC-16", exclusive=True)
def test_alone(platform):
    show("alone")

@promise("OPS-01")
@pytest.mark.parametrize("n", range(2))
def test_beside_the_platform(n):
    show("shared")
"""
TOGETHER = """
@promise("SEC-01")
@pytest.mark.parametrize("n", range(6))
def test_together(platform, n):
    show("shared")
"""


def test_an_exclusive_scenario_runs_alone(run: Run, home: Path) -> None:
    assert run(EXCLUSIVE + TOGETHER, "-n", "3").ret == 0
    log = (home / "log").read_text().splitlines()
    at = log.index("alone in")
    assert log[at + 1] == "alone out"
    assert log[:at].count("shared in") == log[:at].count("shared out")
    assert log.count("shared out") == 8


def test_a_scenario_that_has_prepared_beside_others_goes_on_alone(run: Run, home: Path) -> None:
    preparing = """
@promise("SEC-16", seconds=70)
@pytest.mark.parametrize("n", range(2))
def test_alone(platform, alone, n):
    show("preparing")
    alone()
    show("alone")
"""
    assert run(EXCLUSIVE.partition("@promise")[0] + preparing + TOGETHER, "-n", "3").ret == 0
    log = (home / "log").read_text().splitlines()
    for at in (place for place, line in enumerate(log) if line == "alone in"):
        assert log[at + 1] == "alone out"
        assert all(log[:at].count(f"{who} in") == log[:at].count(f"{who} out") for who in ("shared", "preparing"))
    assert [log.count(f"{who} out") for who in ("preparing", "alone", "shared")] == [2, 2, 6]


@pytest.mark.parametrize(("waits", "verdict"), [("alone()", "failed"), ("pass", "error")])
def test_what_others_restarted_before_it_was_alone_did_not_die(
    run: Run, pytester: pytest.Pytester, waits: str, verdict: str
) -> None:
    run(
        f"""
from dataclasses import replace

@promise("SEC-01")
def test_waits(platform, alone):
    again = [replace(part, pid=77) for part in platform.components()]
    platform.components = lambda: again
    {waits}
    assert False, "token refused"
"""
    )
    assert verdicts(pytester) == {"SEC-01": verdict}


def test_those_of_a_group_run_one_after_another(run: Run, home: Path) -> None:
    grouped = (EXCLUSIVE + TOGETHER).replace('"SEC-01"', '"SEC-01", group="heavy"').replace("range(6)", "range(3)")
    assert run(grouped, "-n", "3", "-k", "SEC-01").ret == 0
    assert (home / "log").read_text().splitlines() == ["shared in", "shared out"] * 3


def test_keep_and_reuse(run: Run, home: Path) -> None:
    one = "@promise('SEC-01')\ndef test_x(platform):\n    pass\n"
    run(one, "--keep")
    assert calls(home) == ["open"]
    result = run(one, "--reuse")
    assert calls(home) == ["open"]
    result.stdout.fnmatch_lines(["Platform found running*"])


def test_long_ones_first_in_parallel_and_in_order_alone(run: Run, pytester: pytest.Pytester) -> None:
    text = """
@promise("TEN-01", seconds=50)
def test_long(platform):
    pass
@promise("SEC-01", seconds=1)
def test_short(platform):
    pass
@promise("SEC-16", seconds=70, exclusive=True)
def test_alone(platform):
    pass
@promise("SCL-02", seconds=60)
def test_prepares(platform, alone):
    pass
"""
    run(text)
    assert list(verdicts(pytester)) == ["SEC-01", "SEC-16", "TEN-01", "SCL-02"]
    run(text, "-n", "1")
    assert list(verdicts(pytester)) == ["TEN-01", "SEC-01", "SCL-02", "SEC-16"]


def test_hardly_anything_waits_behind_a_long_one(run: Run, pytester: pytest.Pytester) -> None:
    """Of five that take no time, the worker with the long one keeps only the next."""
    text = """
@promise("TEN-01", seconds=50)
def test_long(platform):
    time.sleep(3)
@promise("SEC-01")
@pytest.mark.parametrize("n", range(5))
def test_short(platform, n):
    pass
"""
    run(text, "-n", "2")
    order = [e["scenario"] for e in events(pytester) if e["event"] == "verdict"]
    assert order == ["SEC-01"] * 4 + ["TEN-01", "SEC-01"]


def test_reports_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(MIXED, "--reports", str(tmp_path / "file" / "x"))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*Reports can't be written to*--reports=DIR*"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    "decorator",
    ['scenario("SEC-99", sabotage="x")', 'scenario("SEC-01")', 'scenario("SEC-01", needs="mesh", sabotage="x")'],
)
def test_a_careless_decorator_is_refused(run: Run, decorator: str) -> None:
    assert run(f"@{decorator}\ndef test_x():\n    pass").ret == 2


def test_the_demo_shows_steps_commands_and_replies(run: Run) -> None:
    result = run(MIXED, "--demo", "--demo-pace", "0", "-k", "SEC-01")
    result.stdout.fnmatch_lines(["*SEC-01*", "*When asked*", "*curl http://x/*", "*200*", "✔ SEC-01*"])
    assert run(MIXED, "--demo", "-n", "2").ret == 4


def test_verbose_is_pytests_own_way(run: Run) -> None:
    run(MIXED, "-v").stdout.fnmatch_lines_random(["*::test_broken FAILED*", "*assert 200 == 401*"])
