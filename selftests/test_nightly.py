"""The nightly matrix: legs, refusals, going on, what changed, and the page."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import write_run
from typer.testing import CliRunner

from inferencebox.cli import app
from inferencebox.errors import SetupProblem
from inferencebox.nightly import legs as legs_module
from inferencebox.nightly import night
from inferencebox.nightly.legs import Leg, LegOutcome, changes, legs
from inferencebox.nightly.night import run_night
from inferencebox.nightly.page import headline, markdown, page
from inferencebox.nightly.record import RECORD, NightRecord
from inferencebox.support import Finding, Level

Runs = Callable[[int, bool], list[list[str]]]


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Stands for pytest's process: writes a run, or none, and ends with a code. Gives what it was asked."""

    def arrange(code: int, records: bool) -> list[list[str]]:
        asked: list[list[str]] = []

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            asked.append(command)
            folder = next(Path(word.partition("=")[2]) for word in command if word.startswith("--reports="))
            if records:
                write_run(folder, promises=40)
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(night.subprocess, "run", run)
        monkeypatch.setattr(night, "render", lambda _: None)
        return asked

    return arrange


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the release, its versions don't go together."""
    finding = Finding(Level.REFUSE, "istio 1.26 needs kubernetes 1.29 to 1.32")
    monkeypatch.setattr(legs_module, "findings", lambda _: [finding])


def quiet(_: str) -> None: ...


def test_a_night_is_every_release_on_every_provider() -> None:
    assert [leg.name for leg in legs(["a", "b"], ["local", "kind"])] == ["a-local", "a-kind", "b-local", "b-kind"]


@pytest.mark.parametrize(("code", "word"), [(0, "held"), (1, "broken"), (2, "not judged"), (-9, "not judged")])
def test_the_word_on_a_leg_is_the_exit_code_of_its_run(suite: Runs, tmp_path: Path, code: int, word: str) -> None:
    asked = suite(code, True)
    (outcome,) = run_night([Leg("2026.11", "local")], tmp_path, ["tests", "-n", "2"], False, quiet)
    assert (outcome.word, outcome.verdicts["SEC-08"]) == (word, "passed")
    assert asked[0][3:] == [
        "--provider=local",
        "--release=2026.11",
        f"--reports={tmp_path}/2026.11-local",
        "tests",
        "-n",
        "2",
    ]


def test_a_run_without_a_record_is_not_judged_and_says_why(suite: Runs, tmp_path: Path) -> None:
    suite(2, False)
    (outcome,) = run_night([Leg("2026.11", "local")], tmp_path, [], False, quiet)
    assert outcome.word == "not judged"
    assert "There is no recorded run" in outcome.reason
    assert "exit code 2" in outcome.reason


@pytest.mark.usefixtures("refused")
def test_versions_that_dont_go_together_are_reported_and_not_run(suite: Runs, tmp_path: Path) -> None:
    asked = suite(0, True)
    (outcome,) = run_night([Leg("2026.11", "kind")], tmp_path, [], False, quiet)
    assert (outcome.word, outcome.reason) == ("refused", "istio 1.26 needs kubernetes 1.29 to 1.32")
    assert asked == []


def test_an_unknown_release_is_refused_by_name(tmp_path: Path) -> None:
    (outcome,) = run_night([Leg("1999.01", "kind")], tmp_path, [], False, quiet)
    assert outcome.word == "refused"
    assert "1999.01" in outcome.reason


def test_an_interrupted_night_goes_on_where_it_was(suite: Runs, tmp_path: Path) -> None:
    asked = suite(0, True)
    run_night([Leg("2026.11", "local")], tmp_path, [], False, quiet)
    said: list[str] = []
    outcomes = run_night(legs(["2026.11"], ["local", "kind"]), tmp_path, [], True, said.append)
    assert [outcome.leg for outcome in outcomes] == ["2026.11-local", "2026.11-kind"]
    assert len(asked) == 2
    assert said[0] == "[1/2] 2026.11-local: was held before"


def test_a_new_night_is_compared_with_the_one_before(suite: Runs, tmp_path: Path) -> None:
    suite(0, True)
    run_night([Leg("2026.11", "local")], tmp_path, [], False, quiet)
    before = NightRecord(tmp_path).outcomes()
    run_night([Leg("2026.11", "local")], tmp_path, [], False, quiet)
    assert NightRecord(tmp_path).night_before() == before


def test_changes_are_those_of_scenarios_that_both_nights_tried() -> None:
    before = [LegOutcome("x", "held", verdicts={"SEC-01": "passed", "SEC-02": "passed"})]
    now = [LegOutcome("x", "broken", verdicts={"SEC-01": "failed", "SEC-03": "passed"}), LegOutcome("y", "held")]
    assert [(each.scenario, each.before, each.now) for each in changes(before, now)] == [("SEC-01", "passed", "failed")]


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("[{]")
    with pytest.raises(SetupProblem, match="no record of a night"):
        run_night([Leg("2026.11", "local")], tmp_path, [], True, quiet)


def test_the_page_and_the_summary_tell_legs_changes_and_differences() -> None:
    now = [
        LegOutcome("2026.11-local", "held", seconds=100, verdicts={"SEC-01": "passed", "SCL-01": "not exercised"}),
        LegOutcome("2026.11-kind", "broken", seconds=900, verdicts={"SEC-01": "failed", "SCL-01": "passed"}),
        LegOutcome("2025.06-kind", "refused", "istio <1.26> is too old"),
    ]
    changed = changes([LegOutcome("2026.11-kind", "held", verdicts={"SEC-01": "passed"})], now)
    assert headline(now) == "Promises did not hold on 2026.11-kind"
    html, text = page(now, changed), markdown(now, changed)
    for words in ("istio &lt;1.26&gt; is too old", "Where the legs differ", 'href="2026.11-kind/index.html"'):
        assert words in html
    assert "- 2026.11-kind SEC-01: passed -> failed" in text
    assert "| 2025.06-kind | refused istio <1.26> is too old | 0 | 0 | 0 | 0 | 0 |" in text


@pytest.mark.parametrize(("codes", "exit_code"), [(0, 0), (1, 1), (2, 2)])
def test_the_command_ends_as_the_night_did_and_leaves_a_page(
    suite: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: int, exit_code: int
) -> None:
    suite(codes, True)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    words = ["nightly", "--release", "2026.11", "--provider", "local", "--reports", str(tmp_path / "night")]
    assert CliRunner().invoke(app, words).exit_code == exit_code
    assert (tmp_path / "night" / "index.html").exists()
    assert (tmp_path / "step.md").read_text() == (tmp_path / "night" / "summary.md").read_text()


@pytest.mark.usefixtures("refused")
def test_the_legs_can_be_listed(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["nightly", "--list", "--release", "2026.11", "--provider", "kind"]).output
    assert told == "2026.11-kind: istio 1.26 needs kubernetes 1.29 to 1.32\n"
