"""The first page: one self-contained HTML file that a manager understands and an engineer can dig into."""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from inferencebox.report.document import document
from inferencebox.report.model import Result, Run, reasons
from inferencebox.report.plots import stacked
from inferencebox.report.sections import controls, duration, facts, matrix, style
from inferencebox.report.walkthrough import scenario_html
from inferencebox.scenarios import DEMOS, catalogue
from inferencebox.verdicts import VERDICTS

_SCRIPT = Path(__file__).parent / "assets" / "page.js"
_MEANING = {
    "passed": "held",
    "failed": "did not hold",
    "error": "could not be judged",
    "known gap": "known gaps of upstreams",
    "not exercised": "not exercised",
}


def page(run: Run, others: Iterable[tuple[str, str]] = ()) -> str:
    """The whole page. Needs nothing but itself: no fonts, scripts or pictures from elsewhere.

    Args:
        run: the recorded run.
        others: further reports beside it: (file, what it is).
    """
    parts = [
        _summary(run),
        "<main>",
        _broken(run),
        _areas(run),
        _demos(run),
        _not_exercised(run),
        matrix(run),
        _scenarios(run),
        controls(run),
        facts(run),
        "</main>",
        _footer(others),
    ]
    return document(f"Inference in a Box: {_headline(run)}", "".join(parts), _SCRIPT.read_text("utf-8"))


def _headline(run: Run) -> str:
    counts, exercised = run.counts, _exercised(run)
    if counts["failed"]:
        return f"{counts['failed']} of {exercised} promises did not hold"
    if counts["error"]:
        return f"{counts['error']} of {exercised} promises could not be judged"
    if not counts["passed"]:
        return "No promise was exercised"
    if counts["known gap"]:
        gaps = f"{counts['known gap']} known gap{'s' * (counts['known gap'] > 1)}"
        return f"{counts['passed']} promises held; {gaps} of an upstream"
    if counts["not exercised"]:
        return f"All {counts['passed']} promises that were exercised held"
    return f"All {exercised} promises held"


def _exercised(run: Run) -> int:
    return len(run.results) - run.counts["not exercised"]


def _summary(run: Run) -> str:
    counts, said = run.counts, run.facts
    when = datetime.fromtimestamp(run.began, UTC).strftime("%d %B %Y, %H:%M UTC")
    release = run.platform.get("release") or said.get("release") or "unknown"
    tally = "".join(
        f'<div><b class="{style(verdict)}">{counts[verdict]}</b><span>{_MEANING[verdict]}</span></div>'
        for verdict in VERDICTS
        if counts[verdict] or verdict != "known gap"
    )
    untested = len(run.untested())
    bar = stacked("Promises by verdict", [*((style(v), counts[v]) for v in VERDICTS), ("untested", untested)])
    left = f"{counts['not exercised']} could not be exercised here" if counts["not exercised"] else ""
    rest = f"{untested} were not part of the run" if untested else ""
    rest = f" {' and '.join(filter(None, (left, rest)))}." if left or rest else ""
    unfinished = "" if run.exit_code is not None else ' <strong class="error">The run was cut short.</strong>'
    lede = (
        f"This platform promises {len(catalogue())} things. Each promise is tried on the running platform, from "
        f"outside, as its users would. This run tried {_exercised(run)} of them.{rest}{unfinished}"
    )
    return (
        '<header class="top"><div><div class="eyebrow">'
        f"<span>Inference in a Box: release {escape(str(release))}, provider {escape(str(said.get('provider')))}, "
        f"{when}, {duration(run.seconds)}</span>"
        '<button id="theme" type="button" title="Light or dark">Theme</button></div>'
        f'<h1>{escape(_headline(run))}</h1><p class="lede">{lede}</p>'
        f'<div class="tally">{tally}</div>{bar}</div></header>'
    )


def _broken(run: Run) -> str:
    """What did not hold, and what nobody can say because of the environment: first, with causes."""
    blocks = []
    for verdict, heading in (
        ("failed", "What did not hold"),
        ("error", "What could not be judged"),
        ("known gap", "What an upstream is known not to keep"),
    ):
        found = run.of(verdict=verdict)
        if found:
            rows = "".join(_reason_row(run, reason, names) for reason, names in reasons(found))
            blocks.append(
                f'<h2 class="{style(verdict)}">{heading}</h2><div class="panel"><ul class="reasons">{rows}</ul></div>'
            )
    return "".join(blocks)


def _reason_row(run: Run, reason: str, names: list[str]) -> str:
    if len(names) <= 3:
        titles = "".join(f"<div>{_link(name)} {escape(run.results[name].title)}</div>" for name in names)
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
    return f'<td class="n {style(verdict)}">{number}</td>' if number else '<td class="n soft">0</td>'


def _demos(run: Run) -> str:
    cards = []
    for demo in DEMOS:
        found = [result for result in run.of(feature=demo) if result.promise.demo]
        if not found:
            continue
        held, bad = _tally(found, "passed"), _tally(found, "failed")
        words = f"{held} of {len(found)} held" + (f", {bad} did not" if bad else "")
        look = "failed" if bad else "passed" if held == len(found) else "not-exercised"
        href = f"#{found[0].promise.id}"
        cards.append(f'<a href="{href}"><b>{demo}</b><span class="{look}">{words}</span></a>')
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


def _footer(others: Iterable[tuple[str, str]]) -> str:
    links = ", ".join(f'<a href="{file}">{escape(what)}</a>' for file, what in others)
    also = f"<p>Also from this run: {links}.</p>" if links else ""
    said = "Drawn from run.jsonl. Tokens, keys and passwords were removed before anything was written."
    return f"<footer>{also}<p>{said}</p></footer>"
