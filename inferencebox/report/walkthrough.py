"""One scenario as a walkthrough: its steps, what was asked and answered, and plots."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby, takewhile

from inferencebox.report.model import Attachment, Exchange, Item, Result, Step
from inferencebox.report.plots import draw

SIGNS = {"passed": "✔", "failed": "✘", "error": "!", "known gap": "△", "not exercised": "○"}
Part = Step | Exchange | Attachment
ALIKE_SHOWN = 2
_SHOWN_INLINE = 160
_BREAK = re.compile(r" (?=(?:Given|When|Then|And):? )")


def scenario_html(result: Result) -> str:
    """The expandable entry of one promise."""
    promise, verdict = result.promise, result.verdict
    style = verdict.replace(" ", "-")
    words = f"{promise.id} {result.title} {promise.promise} {promise.area} {promise.feature} {verdict}".lower()
    why = f'<span class="why {style}">{escape(result.reason)}</span>' if verdict != "passed" and result.reason else ""
    time = f"{result.seconds:.1f} s" if verdict != "not exercised" else ""
    bodies = "".join(_item(item, len(result.items) > 1) for item in result.items)
    return (
        f'<details class="scenario" id="{promise.id}" data-verdict="{verdict}" data-words="{escape(words)}"><summary>'
        f'<span class="sign {style}" title="{verdict}" aria-label="{verdict}">{SIGNS[verdict]}</span>'
        f'<span class="id">{promise.id}</span><span class="title">{escape(result.title)}</span>'
        f'<span class="time">{time}</span>{why}</summary><div class="body">'
        f'<p class="promise">Promised: {escape(promise.promise)}</p>{_tags(result)}{bodies}</div></details>'
    )


def _tags(result: Result) -> str:
    promise, breaks = result.promise, result.items[0].sabotage
    tags = [
        promise.feature,
        "part of the live demo" if promise.demo else "",
        "somebody tries to get through" if promise.adversarial else "",
        "on the roadmap of one source" if promise.roadmap else "",
        f"layers {' '.join(promise.layers)}" if promise.layers else "",
        f"sources {' '.join(promise.seeds)}",
        f"turns red under {', '.join(breaks)}" if breaks else "",
    ]
    return f'<div class="tags">{"".join(f"<span>{escape(tag)}</span>" for tag in tags if tag)}</div>'


def _item(item: Item, named: bool) -> str:
    heading = f"<h3>{escape(item.title)}: {item.verdict}</h3>" if named else ""
    parts = [part for part in item.root.parts if part not in item.diagnosis]
    before = list(takewhile(lambda part: not isinstance(part, Step), parts))
    after = list(takewhile(lambda part: not isinstance(part, Step), reversed(parts)))[::-1]
    if len(before) < len(parts):
        told = parts[len(before) : len(parts) - len(after)]
        steps = _around("Made ready before", before) + _steps(told) + _around("Cleared away after", after)
    else:
        steps = _steps(parts)
    return f"{heading}{_story(item)}{_cause(item)}{steps}"


def _steps(parts: Sequence[Part]) -> str:
    return f'<ol class="steps">{"".join(map(_list_entry, parts))}</ol>' if parts else ""


def _around(title: str, parts: Sequence[Part]) -> str:
    """What fixtures did, folded: it is no step of the story."""
    if not parts:
        return ""
    return f'<details class="note"><summary>{title} ({len(parts)})</summary>{_in_row(parts)}</details>'


def _in_row(parts: Sequence[Part]) -> str:
    """Parts one after another; of many requests alike, with replies alike, the first is shown and the others folded."""
    shown = []
    for _, alike in groupby(parts, key=_likeness):
        first, *others = alike
        shown.append(_part(first))
        if len(others) < ALIKE_SHOWN:
            shown += map(_part, others)
        else:
            inner = "".join(map(_part, others))
            shown.append(f'<details class="note"><summary>{len(others)} more like it</summary>{inner}</details>')
    return "".join(shown)


def _likeness(part: Part) -> object:
    """What two requests must have in common to be shown as one; anything else is like nothing but itself."""
    if not isinstance(part, Exchange) or part.omitted:
        return id(part)
    request, response = part.request, part.response
    return (*(request.get(name) for name in ("name", "method", "url")), *map(response.get, ("status", "summary")))


def _story(item: Item) -> str:
    """The rest of the docstring: given, when, then, each on a line of its own; other text flows."""
    rest = item.story.partition("\n")[2].strip()
    paragraphs = [_BREAK.sub("<br>", " ".join(escape(each).split())) for each in rest.split("\n\n")]
    return "".join(f'<p class="said">{paragraph}</p>' for paragraph in paragraphs if paragraph)


def _cause(item: Item) -> str:
    if item.verdict not in ("failed", "error"):
        return ""
    where = f'<p class="soft">{escape(item.where)}</p>' if item.where else ""
    notes = "".join(_attachment(part) for part in item.diagnosis)
    trace = _folded("Traceback", item.detail) if item.detail else ""
    return f'<div class="cause {item.verdict}"><p>{escape(item.reason)}</p>{where}{notes}{trace}</div>'


def _list_entry(part: Part) -> str:
    style = part.outcome if isinstance(part, Step) else "passed"
    return f'<li class="{style}">{_part(part)}</li>'


def _part(part: Part) -> str:
    if isinstance(part, Exchange):
        return _exchange(part)
    if isinstance(part, Attachment):
        return _attachment(part)
    return _step(part)


def _step(step: Step) -> str:
    word = f"<i>{step.kind.capitalize()}</i> " if step.kind else ""
    shown = sum(isinstance(part, Exchange) for part in step.parts)
    more = f", {step.exchanges} requests" if step.exchanges > max(shown, 1) else ""
    head = f'<div class="step">{word}{escape(step.title)}<span class="time">{step.seconds:.2f} s{more}</span></div>'
    why = f'<div class="said failed">{escape(step.reason)}</div>' if step.outcome == "failed" and step.reason else ""
    inner = "".join(
        _steps(list(parts)) if nested else _in_row(list(parts))
        for nested, parts in groupby(step.parts, key=lambda part: isinstance(part, Step))
    )
    return f"{head}{inner}{why}"


def _exchange(exchange: Exchange) -> str:
    request, response = exchange.request, exchange.response
    method, url = str(request.get("method", "")), str(request.get("url", ""))
    status = str(response.get("status") or response.get("error") or "no reply")
    style = f"s{status[0]}" if status[0].isdigit() else "s4"
    elapsed = response.get("elapsed")
    took = f" {float(elapsed) * 1000:.0f} ms" if isinstance(elapsed, int | float) else ""
    target = f"{method} {url.partition('?fieldManager=')[0]}"
    name = str(request.get("name") or "")
    plain = (
        not name or name.startswith("kubectl ") or (name.startswith(f"{method} ") and url.endswith(name.split()[-1]))
    )
    called = "" if plain else f"<b>{escape(name)}</b> "
    skipped = f'<p class="said">... {exchange.omitted} more in between</p>' if exchange.omitted else ""
    return (
        f'{skipped}<details class="exchange"><summary><span>{called}{escape(target)}</span>'
        f'<span class="{style}">{escape(status)}{took}</span></summary>'
        f'<div class="talk"><div><h4>Request</h4>{_message(request)}</div>'
        f"<div><h4>Reply</h4>{_message(response)}</div></div>"
        f'<div class="command"><pre>{escape(exchange.command)}</pre>'
        '<button type="button" class="copy">Copy</button></div></details>'
    )


def _message(message: Mapping[str, object]) -> str:
    headers = message.get("headers")
    pairs = headers.items() if isinstance(headers, Mapping) else headers if isinstance(headers, list) else ()
    lines = [f"{name}: {value}" for name, value in pairs]
    detail = str(message.get("detail") or "")
    body = pretty(message.get("body"))
    text = "\n".join([*lines, *([detail] if detail else []), "", body]).strip()
    return f"<pre>{escape(text)}</pre>"


def pretty(body: object) -> str:
    """JSON indented; anything else as it is."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False) if body else ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _attachment(part: Attachment) -> str:
    if part.kind == "plot" and (svg := draw(part.title, part.body)):
        return f"<figure><figcaption>{escape(part.title)}</figcaption>{svg}</figure>"
    text = pretty(part.body) if part.mime == "application/json" else str(part.body)
    if len(text) <= _SHOWN_INLINE and "\n" not in text.strip():
        return f'<p class="said">{escape(part.title)}: {escape(text.strip())}</p>'
    return _folded(part.title, text)


def _folded(title: str, text: str) -> str:
    return f'<details class="note"><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>'
