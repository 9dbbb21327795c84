"""The first page: one self-contained HTML file that a manager understands and an engineer can dig into."""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from inferencebox.report.controls import controls_report
from inferencebox.report.model import VERDICTS, Result, Run, reasons
from inferencebox.report.plots import stacked
from inferencebox.report.walkthrough import scenario_html
from inferencebox.scenarios import DEMOS, catalogue

_ASSETS = Path(__file__).parent / "assets"
_MEANING = {
    "passed": "held",
    "failed": "did not hold",
    "error": "could not be judged",
    "not exercised": "not exercised",
}
_STANDING = {"supported": "passed", "violated": "failed", "partly supported": "error", "no evidence": "not-exercised"}


def page(run: Run, others: Iterable[tuple[str, str]] = ()) -> str:
    """The whole page. Needs nothing but itself: no fonts, scripts or pictures from elsewhere.

    Args:
        run: the recorded run.
        others: further reports beside it: (file, what it is).
    """
    css, js = (_ASSETS / "page.css").read_text("utf-8"), (_ASSETS / "page.js").read_text("utf-8")
    parts = [
        _summary(run),
        "<main>",
        _broken(run),
        _areas(run),
        _demos(run),
        _not_exercised(run),
        _matrix(run),
        _scenarios(run),
        _controls(run),
        _facts(run),
        "</main>",
        _footer(others),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Inference in a Box: {escape(_headline(run))}</title><link rel="icon" href="data:,">'
        f"<style>\n{css}</style></head><body>\n{''.join(parts)}\n<script>\n{js}</script></body></html>\n"
    )


def _headline(run: Run) -> str:
    counts, total = run.counts, len(run.results)
    if counts["failed"]:
        return f"{counts['failed']} of {total} promises did not hold"
    if counts["error"]:
        return f"{counts['error']} of {total} promises could not be judged"
    if not counts["passed"]:
        return "No promise was exercised"
    if counts["not exercised"]:
        return f"All {counts['passed']} promises that were exercised held"
    return f"All {total} promises held"


def _summary(run: Run) -> str:
    counts, facts = run.counts, run.facts
    when = datetime.fromtimestamp(run.began, UTC).strftime("%d %B %Y, %H:%M UTC")
    release = run.platform.get("release") or facts.get("release") or "unknown"
    tally = "".join(
        f'<div><b class="{_style(verdict)}">{counts[verdict]}</b><span>{_MEANING[verdict]}</span></div>'
        for verdict in VERDICTS
    )
    untested = len(run.untested())
    bar = stacked("Promises by verdict", [*((_style(v), counts[v]) for v in VERDICTS), ("untested", untested)])
    left = f"{counts['not exercised']} could not be exercised here" if counts["not exercised"] else ""
    rest = f"{untested} were not part of the run" if untested else ""
    rest = f" {' and '.join(filter(None, (left, rest)))}." if left or rest else ""
    unfinished = "" if run.exit_code is not None else ' <strong class="error">The run was cut short.</strong>'
    exercised = len(run.results) - counts["not exercised"]
    lede = (
        f"This platform promises {len(catalogue())} things. Each promise is tried on the running platform, from "
        f"outside, as its users would. This run exercised {exercised} of them.{rest}{unfinished}"
    )
    return (
        '<header class="top"><div><div class="eyebrow">'
        f"<span>Inference in a Box: release {escape(str(release))}, provider {escape(str(facts.get('provider')))}, "
        f"{when}, {_duration(run.seconds)}</span>"
        '<button id="theme" type="button" title="Light or dark">Theme</button></div>'
        f'<h1>{escape(_headline(run))}</h1><p class="lede">{lede}</p>'
        f'<div class="tally">{tally}</div>{bar}</div></header>'
    )


def _broken(run: Run) -> str:
    """What did not hold, and what nobody can say because of the environment: first, with causes."""
    blocks = []
    for verdict, heading in (("failed", "What did not hold"), ("error", "What could not be judged")):
        found = run.of(verdict=verdict)
        if found:
            rows = "".join(_reason_row(reason, names) for reason, names in reasons(found))
            blocks.append(
                f'<h2 class="{verdict}">{heading}</h2><div class="panel"><ul class="reasons">{rows}</ul></div>'
            )
    return "".join(blocks)


def _reason_row(reason: str, names: list[str]) -> str:
    if len(names) <= 3:
        titles = "".join(f"<div>{_link(name)} {escape(catalogue()[name].promise)}</div>" for name in names)
        return f'<li>{titles}<div class="soft">{escape(reason)}</div></li>'
    return f'<li>{escape(reason)}<div class="ids">{"".join(map(_link, names))}</div></li>'


def _link(name: str) -> str:
    return f'<a class="id" href="#{name}">{name}</a>'


def _areas(run: Run) -> str:
    rows = []
    for area in run.areas():
        found = run.of(area)
        cells = "".join(_count(sum(result.verdict == v for result in found), v) for v in VERDICTS)
        promised = sum(promise.area == area for promise in catalogue().values())
        rows.append(
            f'<tr><td><a href="#area-{area}">{area.capitalize()}</a></td><td class="n">{promised}</td>{cells}</tr>'
        )
    heads = "".join(f'<th class="n">{_MEANING[verdict]}</th>' for verdict in VERDICTS)
    return (
        '<h2>By area</h2><div class="panel scroll"><table><thead><tr><th>Area</th><th class="n">promised</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _count(number: int, verdict: str) -> str:
    return f'<td class="n {_style(verdict)}">{number}</td>' if number else '<td class="n soft">0</td>'


def _demos(run: Run) -> str:
    cards = []
    for demo in DEMOS:
        found = [result for result in run.of(feature=demo) if result.promise.demo]
        if not found:
            continue
        held, bad = _tally(found, "passed"), _tally(found, "failed")
        words = f"{held} of {len(found)} held" + (f", {bad} did not" if bad else "")
        style = "failed" if bad else "passed" if held == len(found) else "not-exercised"
        href = f"#{found[0].promise.id}"
        cards.append(f'<a href="{href}"><b>{demo}</b><span class="{style}">{words}</span></a>')
    return f'<h2>The live demos</h2><div class="demos">{"".join(cards)}</div>' if cards else ""


def _tally(results: list[Result], verdict: str) -> int:
    return sum(result.verdict == verdict for result in results)


def _not_exercised(run: Run) -> str:
    found = run.of(verdict="not exercised")
    if not found:
        return ""
    rows = "".join(
        f'<li>{escape(reason)}<div class="ids">{"".join(map(_link, names))}</div></li>'
        for reason, names in reasons(found)
    )
    return (
        '<h2>What was not exercised, and why</h2><div class="panel"><p class="soft">Nothing is said about these '
        f'promises: this provider or machine cannot show them.</p><ul class="reasons">{rows}</ul></div>'
    )


def _matrix(run: Run) -> str:
    """Sabotage by scenario: whether each deliberate break was noticed."""
    matrix: dict[str, Any] = dict(run.kill_matrix.get("matrix", {}))
    if not matrix:
        return ""
    columns = sorted({name for row in matrix.values() for name in row}, key=list(catalogue()).index)
    expected: dict[str, list[str]] = run.kill_matrix.get("expected", {})
    heads = "".join(f'<th class="up">{name}</th>' for name in columns)
    rows = []
    for sabotage, row in matrix.items():
        cells = "".join(_cell(row.get(name), name in expected.get(sabotage, ())) for name in columns)
        rows.append(f"<tr><th>{escape(sabotage)}</th>{cells}</tr>")
    return (
        '<h2>Proof that the suite can fail</h2><div class="panel"><p class="soft">The platform was broken on purpose '
        f"in {len(matrix)} ways, one at a time, to see whether the scenarios notice.</p>"
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


def _scenarios(run: Run) -> str:
    present = [verdict for verdict in VERDICTS if run.of(verdict=verdict)]
    buttons = '<button type="button" data-verdict="" aria-pressed="true">All</button>' + "".join(
        f'<button type="button" data-verdict="{verdict}" aria-pressed="false">{_MEANING[verdict].capitalize()}</button>'
        for verdict in present
    )
    sections = [
        f'<section class="area" id="area-{area}"><h3>{area.capitalize()}</h3>'
        f"{''.join(scenario_html(result) for result in run.of(area))}</section>"
        for area in run.areas()
    ]
    return (
        '<h2 id="scenarios">Every promise, as it was shown</h2><div class="tools">'
        '<input type="search" id="search" aria-label="Search promises" placeholder="Search: SEC-08, canary, token ...">'
        f'{buttons}<button type="button" id="expand">Open all</button></div>'
        f'{"".join(sections)}<p id="nothing" class="soft" hidden>No promise fits.</p>'
    )


def _controls(run: Run) -> str:
    if not run.results:
        return ""
    rows = []
    for found in controls_report(run):
        names = "".join(
            f'<a class="{_style(verdict)}" href="#{name}" title="{verdict}">{name}</a>'
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


def _facts(run: Run) -> str:
    facts, machine = run.facts, run.facts.get("machine", {})
    shown = {
        "Run": facts.get("run"),
        "Command": " ".join(map(str, facts.get("command", ()))),
        "Provider": facts.get("provider"),
        "Models and limits": f"{facts.get('models')}, {facts.get('limits')}",
        "Platform ready after": f"{run.platform['seconds']} s"
        if run.platform.get("seconds") is not None
        else "not needed",
        "Duration": _duration(run.seconds),
        "Machine": f"{machine.get('cpus')} CPUs, {machine.get('memory_gib')} GiB, {machine.get('system')}",
        "Python": machine.get("python"),
        "Digest of the record": f"sha256:{run.digest}",
    }
    versions = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(version)}</td></tr>" for name, version in run.versions.items()
    )
    table = (
        f'<h3>Versions</h3><div class="panel scroll"><table><tbody>{versions}</tbody></table></div>' if versions else ""
    )
    pairs = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in shown.items())
    return f'<h2>What ran where</h2><div class="panel"><dl class="facts">{pairs}</dl></div>{table}'


def _footer(others: Iterable[tuple[str, str]]) -> str:
    links = ", ".join(f'<a href="{file}">{escape(what)}</a>' for file, what in others)
    also = f"<p>Also from this run: {links}.</p>" if links else ""
    said = "Drawn from run.jsonl. Tokens, keys and passwords were removed before anything was written."
    return f"<footer>{also}<p>{said}</p></footer>"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes"


def _style(verdict: str) -> str:
    return verdict.replace(" ", "-")
