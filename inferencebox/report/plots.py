"""Pictures as inline SVG. They take their colours from the page's style sheet, so that they fit light and dark.

`evidence.plot(title, data)` is drawn by the data's `kind`:

- `split`: `{"kind": "split", "requests": 1000, "shares": {"v1": .91}, "expected": {"v1": .9},
  "band": {"v1": [.87, .93]}}`
- `timeline`: `{"kind": "timeline", "points": [[second, milliseconds, status-or-null]], "marks": [[second, name]],
  "windows": [[from, to, name]]}`: a request stream with marks and error windows
- `course`: `{"kind": "course", "moments": [[second, what]]}`: what happened one after another, as of an alert
- `series`: `{"kind": "series", "unit": "pods", "lines": {"ready": [[second, value]]}}`
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Data = Mapping[str, Any]
WIDTH = 720
LEFT, RIGHT, TOP = 56, 16, 14
MAX_POINTS = 600
_ELEMENTS = "svg|g|path|rect|circle|ellipse|line|polyline|polygon|text|tspan|title|desc|defs"
_ACTIVE = re.compile(rf"<(?!/?(?:{_ELEMENTS})\b)|\bon\w+\s*=|href", re.IGNORECASE)
"""What does not belong into a picture: other elements, event handlers, links."""


def draw(title: str, body: object) -> str:
    """The SVG of a plot attachment; empty when it is of no kind known here."""
    if isinstance(body, str):
        return body if body.lstrip().startswith("<svg") and not _ACTIVE.search(body) else ""
    if not isinstance(body, Mapping):
        return ""
    painter = {"split": split, "timeline": timeline, "series": series, "course": course}.get(str(body.get("kind")))
    try:
        return painter(title, body) if painter else ""
    except (KeyError, TypeError, ValueError, IndexError):
        return ""


def split(title: str, data: Data) -> str:
    """Shares of traffic as bars, with the tolerated band and the promised share."""
    rows, height = [], 34
    names = list(data["shares"])
    scale = WIDTH - LEFT - 40 - RIGHT - 60
    left = LEFT + 40
    for number, name in enumerate(names):
        share, top = float(data["shares"][name]), TOP + number * height
        low, high = data.get("band", {}).get(name, (0, 0))
        wanted = data.get("expected", {}).get(name)
        outside = bool(high) and not low <= share <= high
        rows.append(_text(left - 8, top + 17, name, "end"))
        rows.append(f'<rect class="track" x="{left}" y="{top + 4}" width="{scale}" height="18" rx="3"/>')
        bar = "bar bad" if outside else f"bar c{number % 4}"
        rows.append(f'<rect class="{bar}" x="{left}" y="{top + 4}" width="{scale * share:.1f}" height="18" rx="3"/>')
        if high:
            x, wide = left + scale * low, scale * (high - low)
            rows.append(f'<rect class="band" x="{x:.1f}" y="{top}" width="{wide:.1f}" height="26" rx="2"/>')
        if wanted is not None:
            x = left + scale * float(wanted)
            rows.append(f'<line class="wanted" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{top + 28}"/>')
        rows.append(_text(left + scale + 8, top + 17, f"{share:.1%}"))
    foot = TOP + len(names) * height + 14
    requests = f"{data['requests']} requests; " if data.get("requests") else ""
    rows.append(_text(left, foot, f"{requests}line: promised share, box: tolerated band", style="small"))
    said = ", ".join(f"{name} {float(data['shares'][name]):.1%}" for name in names)
    return _svg(title, f"{title}: {said}", foot + 12, rows)


def timeline(title: str, data: Data) -> str:
    """Each request as a point: when, how long it took, whether it failed; marks are changes made meanwhile."""
    points = _thin(data["points"])
    height, base = 210, 170
    end = max([float(p[0]) for p in points] + [float(m[0]) for m in data.get("marks", ())] + [0.001])
    top_ms = max([float(p[1]) for p in points] + [1.0]) * 1.1
    x = _scale(end, LEFT, WIDTH - RIGHT)
    y = _scale(top_ms, base, TOP + 14)
    rows = _axes(end, top_ms, "ms", base)
    for begin, finish, *name in data.get("windows", ()):
        wide = max(2.0, x(finish) - x(begin))
        rows.append(
            f'<rect class="window" x="{x(begin):.1f}" y="{TOP + 14}" width="{wide:.1f}" height="{base - TOP - 14}"/>'
        )
        rows.append(_text(x(begin) + wide + 4, TOP + 46, " ".join(map(str, name)), style="small"))
    for second, milliseconds, status in points:
        bad = status is None or int(status) >= 400
        style = ' class="dot bad" r="3"' if bad else ' class="dot" r="2"'
        rows.append(f'<circle{style} cx="{x(second):.1f}" cy="{y(milliseconds):.1f}"/>')
    for number, (second, name) in enumerate(data.get("marks", ())):
        rows.append(f'<line class="mark" x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{TOP}" y2="{base}"/>')
        near_end = x(second) > WIDTH - 160
        shift = -4 if near_end else 4
        rows.append(
            _text(x(second) + shift, TOP + 9 + 11 * (number % 2), str(name), "end" if near_end else "start", "small")
        )
    failed = sum(p[2] is None or int(p[2]) >= 400 for p in data["points"])
    said = f"{len(data['points'])} requests, {failed} of them failed"
    rows.append(_text(LEFT, height - 6, said, style="small"))
    return _svg(title, f"{title}: {said}", height, rows)


def series(title: str, data: Data) -> str:
    """Values over time, one line each."""
    lines: Mapping[str, Sequence[Sequence[float]]] = data["lines"]
    height, base = 200, 160
    end = max([float(p[0]) for line in lines.values() for p in line] + [0.001])
    highest = max([float(p[1]) for line in lines.values() for p in line] + [1.0]) * 1.1
    x, y = _scale(end, LEFT, WIDTH - RIGHT), _scale(highest, base, TOP)
    rows = _axes(end, highest, str(data.get("unit", "")), base)
    for number, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{x(second):.1f},{y(value):.1f}" for second, value in line)
        rows.append(f'<polyline class="line c{number % 4}" points="{path}"/>')
        rows.append(
            f'<rect class="bar c{number % 4}" x="{LEFT + number * 150}" y="{height - 17}" width="10" height="10"/>'
        )
        rows.append(_text(LEFT + number * 150 + 15, height - 8, str(name), style="small"))
    return _svg(title, f"{title}: {', '.join(map(str, lines))}", height, rows)


def course(title: str, data: Data) -> str:
    """Moments on a line of time, each with its name and second; names take turns in height so that they can be read."""
    moments = [(float(second), str(what)) for second, what in data["moments"]]
    end = max([second for second, _ in moments] + [0.001])
    x, base = _scale(end, LEFT, WIDTH - LEFT - 30), 96
    rows = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for number, (second, what) in enumerate(moments):
        top = TOP + 8 + (number % 4) * 18
        rows.append(f'<line class="grid" x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{top + 4}" y2="{base}"/>')
        rows.append(f'<circle class="dot" cx="{x(second):.1f}" cy="{base}" r="4"/>')
        rows.append(_text(x(second) + 4, top, f"{what}, {second:.0f} s", style="small"))
    said = ", ".join(f"{what} after {second:.0f} s" for second, what in moments)
    return _svg(title, f"{title}: {said}", base + 14, rows)


def stacked(title: str, parts: Sequence[tuple[str, int]]) -> str:
    """A bar of parts of a whole: (style class, number)."""
    total = sum(number for _, number in parts) or 1
    rows, at = [], 0.0
    for style, number in parts:
        wide = WIDTH * number / total
        if number:
            rows.append(f'<rect class="v-{style}" x="{at:.1f}" y="0" width="{max(wide - 1.5, 1):.1f}" height="14"/>')
        at += wide
    return _svg(title, title, 14, rows, 'preserveAspectRatio="none" class="plot thin"')


def _thin(points: Sequence[Any]) -> list[Any]:
    """Not more points than one can see; failures stay."""
    every = max(1, len(points) // MAX_POINTS)
    return [p for number, p in enumerate(points) if number % every == 0 or p[2] is None or int(p[2]) >= 400]


def _scale(top: float, start: float, end: float) -> Any:
    return lambda value: start + (end - start) * float(value) / top


def _axes(end: float, top: float, unit: str, base: float) -> list[str]:
    x, y = _scale(end, LEFT, WIDTH - RIGHT), _scale(top, base, TOP + 14)
    rows = []
    for part in range(5):
        second = end * part / 4
        rows.append(
            _text(x(second), base + 15, f"{second:.0f} s" if end >= 8 else f"{second:.1f} s", "middle", "small")
        )
    for part in range(1, 4):
        value = top * part / 3.3
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        shown = f"{value:.0f}" if top >= 8 else f"{value:.1f}"
        rows.append(_text(LEFT - 6, y(value) + 4, f"{shown} {unit}", "end", "small"))
    rows.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return rows


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "label") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, said: str, height: float, rows: Sequence[str], more: str = 'class="plot"') -> str:
    head = f'<svg {more} viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(said)}">'
    return f"{head}<title>{escape(title)}</title>{''.join(rows)}</svg>"
