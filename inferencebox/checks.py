"""Checks: pure functions from an observation to nothing, or to the reason why it is not as wanted. They compose.

A check works on any value; those about replies ask for the attributes of `probes.http.Observation`, which
`probes.kubernetes.KubeReply` has as well. The reason is one line and says what was wanted and what came.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any

SHOWN = 200


@dataclass(frozen=True)
class Check:
    """A named check; `&`, `|` and `~` make new ones."""

    name: str
    reason: Callable[[Any], str | None]

    def __call__(self, value: Any) -> str | None:
        """None, or why not."""
        return self.reason(value)

    def __str__(self) -> str:
        return self.name

    def __and__(self, other: "Check") -> "Check":
        return Check(f"{self.name} and {other.name}", lambda value: self(value) or other(value))

    def __or__(self, other: "Check") -> "Check":
        def reason(value: Any) -> str | None:
            if self(value) is None or other(value) is None:
                return None
            return _wanted(f"{self.name} or {other.name}", value)

        return Check(f"({self.name} or {other.name})", reason)

    def __invert__(self) -> "Check":
        return that(f"not {self.name}", lambda value: self(value) is not None)


def shown(value: object) -> str:
    """A value in one line, cut: what is of ours as it describes itself, anything else as its representation."""
    text = str(value) if is_dataclass(value) else repr(value)
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _wanted(wish: str, value: object) -> str:
    return f"wanted {wish}, got {shown(value)}"


def that(name: str, holds: Callable[[Any], bool]) -> Check:
    """A check of one's own from a predicate."""
    return Check(name, lambda value: None if holds(value) else _wanted(name, value))


# --- values ---------------------------------------------------------------------------------------------------------


def equals(expected: object) -> Check:
    return that(repr(expected), lambda value: bool(value == expected))


def one_of(*expected: object) -> Check:
    return that("one of " + ", ".join(map(repr, expected)), lambda value: value in expected)


def at_most(limit: float) -> Check:
    return that(f"at most {limit}", lambda value: value is not None and value <= limit)


def at_least(limit: float) -> Check:
    return that(f"at least {limit}", lambda value: value is not None and value >= limit)


def between(low: float, high: float) -> Check:
    """Both ends belong to it."""
    return that(f"between {low} and {high}", lambda value: value is not None and low <= value <= high)


def contains(part: object) -> Check:
    return that(f"something with {part!r} in it", lambda value: value is not None and part in value)


def matches(pattern: str) -> Check:
    """The regular expression is found in the text."""
    return that(
        f"text like /{pattern}/", lambda value: isinstance(value, str) and re.search(pattern, value) is not None
    )


def present() -> Check:
    return that("something", lambda value: bool(value))


def length(check: Check) -> Check:
    return _inner("length", len, check)


def every(check: Check) -> Check:
    """Each item passes; there must be at least one, or nothing was proved."""

    def reason(values: Iterable[Any]) -> str | None:
        items = list(values)
        if not items:
            return f"wanted every item to be {check.name}, got no item"
        return next((f"item {i}: {why}" for i, item in enumerate(items) if (why := check(item))), None)

    return Check(f"every item {check.name}", reason)


def attribute(name: str, check: Check) -> Check:
    """A check of an attribute, e.g. ``attribute("errors", equals(0))`` of a traffic window."""
    return _inner(name, lambda value: getattr(value, name), check)


def _inner(label: str, part: Callable[[Any], Any], check: Check) -> Check:
    def reason(value: Any) -> str | None:
        why = check(part(value))
        return None if why is None else f"{label}: {why}"

    return Check(f"{label} {check.name}", reason)


# --- replies --------------------------------------------------------------------------------------------------------


def _join(statuses: Collection[int]) -> str:
    return "/".join(map(str, statuses))


def answered(*status: int) -> Check:
    """A reply with (one of) this status; default 200. A transport failure never is one."""
    allowed = status or (200,)
    return that(_join(allowed), lambda seen: seen.error is None and seen.status in allowed)


def refused(*status: int, by: str | Collection[str] | None = None, at: str | None = None) -> Check:
    """A refusal with (one of) this status, for the right reason (``by``: its cause), from the right tier (``at``).

    Another cause, a reply that names none, or another status (404 in place of 403) is not it.
    """
    if not status or min(status) < 400:
        raise ValueError("a refusal has a status of 400 or more")
    causes = (by,) if isinstance(by, str) else by
    wish = _join(status) + (f" by {' or '.join(causes)}" if causes else "") + (f" at {at}" if at else "")

    def reason(seen: Any) -> str | None:
        fits = seen.error is None and seen.status in status
        if fits and (causes is None or seen.cause in causes) and (at is None or seen.tier == at):
            return None
        return f"wanted {wish}, got {_with_details(seen)}"

    return Check(f"refused {wish}", reason)


def _with_details(seen: Any) -> str:
    """A reply that names no cause is told with the beginning of its text, so that one sees what it is."""
    if seen.error is not None or seen.cause is not None or seen.tier == "model":
        return shown(seen)
    text = " ".join(getattr(seen, "text", "").split())[:120]
    return shown(seen) + (f" saying {text!r}" if text else "")


def no_connection(*kinds: str) -> Check:
    """No HTTP status at all: refused, reset, closed, timeout or TLS failure (or only the kinds named).

    A name that does not resolve proves nothing about a blocked way, so it counts only when named.
    """
    allowed = kinds or ("refused", "reset", "closed", "timeout", "tls")
    wish = "no connection" + (f" ({' or '.join(kinds)})" if kinds else "")
    return that(wish, lambda seen: seen.status is None and seen.error in allowed)


def unreachable() -> Check:
    """No connection; or the caller's own sidecar, which takes every connection, says that it could make none."""

    def told_by_sidecar(seen: Any) -> bool:
        return (
            seen.error is None
            and seen.cause == "upstream-connect"
            and "x-envoy-upstream-service-time" not in seen.headers
        )

    return no_connection() | that("the caller's own sidecar: no connection", told_by_sidecar)


def trusted() -> Check:
    """Of a handshake: chain and name of the certificate verified against the authority given."""
    return that("a trusted certificate", lambda seen: seen.trusted is True)


def served_by(who: object) -> Check:
    """The replying replica belongs to ``who``: a replica's, app's or namespace's name, a Workload, several of these, or
    anything with a ``pods`` attribute (names of its replicas).

    A replica belongs to app ``iris`` if its name is ``iris`` or begins with ``iris-``; to a namespace if the reply says
    so in `x-pod-namespace`.
    """
    names = _names(who)
    wish = "a reply from " + " or ".join(sorted(names))

    def fits(seen: Any) -> bool:
        pod, namespace = seen.pod, seen.headers.get("x-pod-namespace")
        if seen.error is not None or not pod:
            return False
        return any(namespace == name or pod == name or pod.startswith(f"{name}-") for name in names)

    return that(wish, fits)


def _names(who: object) -> set[str]:
    if isinstance(who, str):
        return {who}
    pods = getattr(who, "pods", None)
    if pods is not None:
        return _names(tuple(pods() if callable(pods) else pods))
    name = getattr(who, "name", None)
    if name is not None:
        return {str(name)}
    if isinstance(who, Iterable):
        return set().union(*(_names(item) for item in who))
    raise TypeError(f"{who!r} names no replica, app or tenant")


def from_version(version: str) -> Check:
    return that(f"a reply from version {version}", lambda seen: seen.error is None and seen.model_version == version)


def header(name: str, value: str | Check) -> Check:
    """The reply has the header, with this value (all values of a repeated header, joined by ", ")."""
    wanted = equals(value) if isinstance(value, str) else value
    return _inner(f"header {name}", lambda seen: seen.headers.get(name), wanted)


def no_header(name: str) -> Check:
    return _inner(f"header {name}", lambda seen: seen.headers.get(name), that("none", lambda value: value is None))


def elapsed(check: Check) -> Check:
    """Seconds until the whole reply was there."""
    return _inner("seconds", lambda seen: seen.elapsed, check)


def body_text(check: Check) -> Check:
    return _inner("body", lambda seen: seen.text, check)


_MISSING = object()
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def body_json(path: str, check: Check) -> Check:
    """A part of the JSON body: ``predictions``, ``choices[0].message.content``; the empty path is the whole."""

    def reason(seen: Any) -> str | None:
        try:
            document = json.loads(seen.body)
        except ValueError:
            return f"wanted JSON with {path or 'a value'}, got {shown(seen)} saying {seen.text[:120]!r}"
        part = json_part(document, path)
        if part is _MISSING:
            return f"wanted {path} in the body, got {shown(document)}"
        why = check(part)
        return None if why is None else f"{path or 'body'}: {why}"

    return Check(f"{path or 'body'} {check.name}", reason)


def json_part(document: Any, path: str) -> Any:
    """The part at the path, or a value that equals nothing."""
    for index, key in _STEP.findall(path):
        step = int(index or key) if (index or key).isdigit() and isinstance(document, list) else key
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return document
