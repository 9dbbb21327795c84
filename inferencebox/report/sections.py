"""The parts of the first page that are tables of facts: kill matrix, controls, what ran where."""

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from inferencebox.report.controls import controls_report
from inferencebox.report.model import Run
from inferencebox.scenarios import catalogue

_STANDING = {"supported": "passed", "violated": "failed", "partly supported": "error", "no evidence": "not-exercised"}


def matrix(run: Run) -> str:
    """Sabotage by scenario: whether each deliberate break was noticed."""
    found: dict[str, Any] = dict(run.kill_matrix.get("matrix", {}))
    if not found:
        return ""
    columns = sorted({name for row in found.values() for name in row}, key=list(catalogue()).index)
    expected: dict[str, list[str]] = run.kill_matrix.get("expected", {})
    heads = "".join(f'<th class="up">{name}</th>' for name in columns)
    rows = []
    for sabotage, row in found.items():
        cells = "".join(_cell(row.get(name), name in expected.get(sabotage, ())) for name in columns)
        rows.append(f"<tr><th>{escape(sabotage)}</th>{cells}</tr>")
    return (
        '<h2>Proof that the suite can fail</h2><div class="panel"><p class="soft">The platform was broken on purpose '
        f"in {len(found)} ways, one at a time, to see whether the scenarios notice.</p>"
        '<div class="scroll"><table class="matrix"><thead><tr><th></th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{_legend()}</div>"
    )


def _legend() -> str:
    kinds = (
        ("killed", "✔", "noticed"),
        ("survived", "-", "should have noticed"),
        ("collateral", "!", "red without cause"),
    )
    cells = "".join(f'<td class="cell {style}">{sign}</td><td>{words}</td>' for style, sign, words in kinds)
    return f'<table class="matrix legend"><tbody><tr>{cells}</tr></tbody></table>'


def _cell(verdict: str | None, expected: bool) -> str:
    if verdict is None:
        return '<td class="cell"></td>'
    if verdict == "failed":
        return (
            '<td class="cell killed" title="noticed">✔</td>'
            if expected
            else '<td class="cell collateral" title="red without cause">!</td>'
        )
    if expected:
        return '<td class="cell survived" title="not noticed">-</td>'
    return '<td class="cell" title="rightly green"></td>'


def controls(run: Run) -> str:
    """What the run says to controls of GDPR, HIPAA and SOC 2."""
    if not run.results:
        return ""
    rows = []
    for found in controls_report(run):
        names = "".join(
            f'<a class="{style(verdict)}" href="#{name}" title="{verdict}">{name}</a>'
            if name in run.results
            else f'<span class="soft" title="{verdict}">{name} </span>'
            for name, verdict in found.verdicts.items()
        )
        control = found.control
        rows.append(
            f"<tr><td>{control.framework} {control.control}</td><td>{escape(control.about)}</td>"
            f'<td class="{_STANDING[found.standing]}">{found.standing}</td><td class="ids">{names}</td></tr>'
        )
    return (
        '<h2 id="controls">Evidence for GDPR, HIPAA and SOC 2</h2><div class="panel"><p class="soft">Which controls '
        "these results speak to. They are evidence for an auditor, not a statement of compliance.</p>"
        '<div class="scroll"><table><thead><tr><th>Control</th><th>About</th><th>This run</th><th>Scenarios</th></tr>'
        "</thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def facts(run: Run) -> str:
    """Release, provider, machine, versions."""
    said, machine = run.facts, run.facts.get("machine", {})
    shown = {
        "Run": said.get("run"),
        "Command": " ".join(map(str, said.get("command", ()))),
        "Provider": said.get("provider"),
        "Models and limits": f"{said.get('models')}, {said.get('limits')}",
        "Platform ready after": f"{run.platform['seconds']} s"
        if run.platform.get("seconds") is not None
        else "not needed",
        "Duration": duration(run.seconds),
        "Machine": f"{machine.get('cpus')} CPUs, {machine.get('memory_gib')} GiB, {machine.get('system')}",
        "Python": machine.get("python"),
        "Digest of the record": f"sha256:{run.digest}",
    }
    table = _table("Versions that the release pins", run.versions.items()) + _table("Seen running", _seen(run))
    pairs = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in shown.items())
    return f'<h2>What ran where</h2><div class="panel"><dl class="facts">{pairs}</dl></div>{table}'


def _seen(run: Run) -> Iterator[tuple[str, str]]:
    """API server, nodes and images; a platform without kubelets has a version only."""
    if not run.seen:
        return
    yield "API server", run.seen["kubernetes"]
    for name, told in run.seen["nodes"].items():
        yield f"node {name}", ", ".join(f"{what} {value}" for what, value in told.items())
    for image in run.seen["images"]:
        yield image.rpartition("/")[0], image.rpartition("/")[2]


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Nothing if there are no rows."""
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<h3>{title}</h3><div class="panel scroll"><table><tbody>{lines}</tbody></table></div>' if lines else ""


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes"


def style(verdict: str) -> str:
    """A verdict as the style sheet calls it."""
    return verdict.replace(" ", "-")
