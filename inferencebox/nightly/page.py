"""The night on one page, and as Markdown for a job's summary."""

from collections.abc import Sequence
from html import escape

from inferencebox.report.document import document
from inferencebox.report.sections import duration, style
from inferencebox.scenarios import catalogue
from inferencebox.verdicts import VERDICTS

from .legs import Change, LegOutcome

_LOOKS = {"held": "passed", "broken": "failed", "not judged": "error", "refused": "not-exercised"}


def headline(outcomes: Sequence[LegOutcome]) -> str:
    """The night in one line."""
    broken = [outcome.leg for outcome in outcomes if outcome.word == "broken"]
    unknown = [outcome.leg for outcome in outcomes if outcome.word == "not judged"]
    if broken:
        return f"Promises did not hold on {', '.join(broken)}"
    if unknown:
        return f"Nobody can say for {', '.join(unknown)}"
    held = sum(outcome.word == "held" for outcome in outcomes)
    return f"Everything that was tried held, on {held} of {len(outcomes)} legs" if held else "Nothing was tried"


def page(outcomes: Sequence[LegOutcome], changed: Sequence[Change]) -> str:
    """One self-contained HTML file; each leg links to its own report."""
    said = headline(outcomes)
    return document(
        said,
        '<header class="top"><div><div class="eyebrow"><span>Inference in a Box: the nightly matrix</span></div>'
        f"<h1>{escape(said)}</h1></div></header>"
        f"<main>{_legs(outcomes)}{_changes(changed)}{_differences(outcomes)}</main>",
    )


def _legs(outcomes: Sequence[LegOutcome]) -> str:
    heads = "".join(f'<th class="n">{verdict}</th>' for verdict in VERDICTS)
    rows = "".join(
        f"<tr><td>{_link(each)}</td>"
        f'<td class="{_LOOKS[each.word]}">{each.word}<div class="soft">{escape(each.reason)}</div></td>'
        + "".join(
            f'<td class="n {style(v) if each.counts[v] else "soft"}">{each.counts[v] or "-"}</td>' for v in VERDICTS
        )
        + f'<td class="n">{duration(each.seconds) if each.seconds else "-"}</td></tr>'
        for each in outcomes
    )
    return (
        f'<h2>Legs</h2><div class="panel scroll"><table><thead><tr><th>release and provider</th><th></th>{heads}'
        f'<th class="n">took</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _link(outcome: LegOutcome) -> str:
    """A leg's name, leading to its report where it has one."""
    name = escape(outcome.leg)
    return f'<a href="{name}/index.html">{name}</a>' if outcome.verdicts else name


def _changes(changed: Sequence[Change]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.leg)}</td><td>{each.scenario} {escape(catalogue()[each.scenario].title)}</td>"
        f'<td class="{style(each.before)}">{each.before}</td><td class="{style(each.now)}">{each.now}</td></tr>'
        for each in changed
    )
    body = (
        f"<table><thead><tr><th>leg</th><th>promise</th><th>before</th><th>now</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else '<p class="soft">Nothing, of what both nights tried.</p>'
    )
    return f'<h2>What is different from the night before</h2><div class="panel scroll">{body}</div>'


def _differences(outcomes: Sequence[LegOutcome]) -> str:
    """Promises on which the legs do not agree."""
    tried = [outcome for outcome in outcomes if outcome.verdicts]
    names = [name for name in catalogue() if len({each.verdicts[name] for each in tried if name in each.verdicts}) > 1]
    if not names:
        return ""
    heads = "".join(f"<th>{escape(each.leg)}</th>" for each in tried)
    rows = "".join(
        f"<tr><td>{name} {escape(catalogue()[name].title)}</td>"
        + "".join(
            f'<td class="{style(each.verdicts.get(name, "soft"))}">{each.verdicts.get(name, "-")}</td>'
            for each in tried
        )
        + "</tr>"
        for name in names
    )
    return (
        '<h2>Where the legs differ</h2><div class="panel scroll"><table><thead><tr><th>promise</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def markdown(outcomes: Sequence[LegOutcome], changed: Sequence[Change]) -> str:
    """The same, short, as GitHub shows it for a job."""
    lines = [
        f"## {headline(outcomes)}",
        "",
        f"| leg | outcome | {' | '.join(VERDICTS)} |",
        "|" + "---|" * (len(VERDICTS) + 2),
    ]
    lines += [
        f"| {each.leg} | {each.word} {_cell(each.reason)} | {' | '.join(str(each.counts[v]) for v in VERDICTS)} |"
        for each in outcomes
    ]
    lines += ["", f"Different from the night before: {len(changed)}"]
    lines += [f"- {each.leg} {each.scenario}: {each.before} -> {each.now}" for each in changed]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
