"""Draws everything from one recorded run. Needs no platform."""

from dataclasses import dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.journal import reports_problem
from inferencebox.report import allure
from inferencebox.report.attestation import attest
from inferencebox.report.cncf import fragments
from inferencebox.report.junit import junit
from inferencebox.report.model import Run
from inferencebox.report.page import page
from inferencebox.report.profile import profile_yaml
from inferencebox.report.reading import load

LINKS = {
    "allure.html": "the Allure report",
    "junit.xml": "JUnit",
    "profile.yaml": "the conformance profile",
    "cncf/summary.yaml": "CNCF evidence",
    "attestation.json": "the attestation",
}


@dataclass(frozen=True)
class Rendered:
    """What was made, and why something was not."""

    files: list[Path]
    left_out: list[str]


def render(source: Path, out: Path | None = None, *, with_allure: bool = True, key: Path | None = None) -> Rendered:
    """All reports of a run. The Allure report is left out, with the reason, where it can't be made.

    Args:
        source: a run.jsonl, or the folder it is in.
        out: where the reports go; default: beside the run.
        with_allure: whether to draw the Allure report (needs Node.js).
        key: signs the attestation.

    Raises:
        SetupProblem: there is no such run, or the folder can't be written to.
    """
    run = load(source)
    folder = out or run.folder
    files = {"junit.xml": junit(run), "profile.yaml": profile_yaml(run)}
    files |= {f"cncf/{name}": text for name, text in fragments(run).items()}
    files["attestation.json"] = attest(run, {name: text.encode() for name, text in files.items()}, key)
    left_out = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = _allure(run, folder / "allure.html") if with_allure else "not asked for"
        if problem:
            (folder / "allure.html").unlink(missing_ok=True)
            left_out.append(f"allure.html: {problem}")
        there = {*files, *([] if problem else ["allure.html"])}
        files["index.html"] = page(run, [(name, what) for name, what in LINKS.items() if name in there])
        _write(folder, files)
    except OSError as error:
        raise reports_problem(folder, error) from error
    made = [folder / name for name in files] + ([] if problem else [folder / "allure.html"])
    return Rendered(made, left_out)


def _allure(run: Run, target: Path) -> str:
    try:
        allure.draw_report(run, target)
    except SetupProblem as problem:
        return str(problem)
    return ""


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
