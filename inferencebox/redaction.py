"""Removes secrets from everything that is shown or written. The only place that does; used through `evidence`."""

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

TOKEN = "$TOKEN"
SECRET = "$SECRET"
PRIVATE_KEY = "$PRIVATE_KEY"

_PLACEHOLDER = re.compile(r"\$[A-Z][A-Z_]*")
_JWT = re.compile(r"(?<![\w-])ey[JA][A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,4}")
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_BEARER = re.compile(r"\b(bearer|basic|apikey)\s+(?!\$[A-Z])([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_HEADER_NAMES = (
    r"(?:proxy-)?authorization|(?:x-)?api-key|set-cookie|cookie|x-(?:auth|access|csrf|vault)-token|x-amz-security-token"
)
_HEADER = re.compile(
    rf"""(?P<name>\b(?:{_HEADER_NAMES}))(?P<sep>\\*["']?\s*[:=]\s*\\*["']?)"""
    r"""(?P<scheme>(?:bearer|basic|digest)\s+)?(?P<value>[^\r\n"'\\]+)""",
    re.IGNORECASE,
)
_HEADER_NAME = re.compile(rf"(?:{_HEADER_NAMES})", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<name>[?&](?:access_token|id_token|refresh_token|token|api[_-]?key|key|password|secret|signature)=)"
    r"""[^&#\s"'\\]+""",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?P<head>://[^/\s:@]*:)[^/\s@]+(?=@)")
_JSON_FIELD = re.compile(r'(?P<open>\\*")(?P<name>[\w.-]{1,60})(?P<mid>\\*"\s*:\s*\\*")(?P<value>(?:[^"\\]|\\[^"])*)')
_PLAIN_FIELD = re.compile(r"(?P<name>\b[A-Za-z][\w.-]{2,60})(?P<mid>\s*[=:][ \t]*)(?P<value>[^\s,;&\"'{}\[\]\\]+)")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_ALWAYS = {"password", "passwd", "passphrase", "secret", "credential", "credentials", "authorization", "cookie"}
_TEXTS = {"token", "key", "apikey", "jwt"}
_HARMLESS_ENDINGS = {"name", "ref", "type", "url", "uri", "endpoint", "path", "count", "algorithm", "format"}
_SELECTOR_FIELDS = {"operator", "values", "notValues", "effect", "topologyKey"}

_SHORT = 256
"""Characters: of texts up to this length the redacted ones are remembered, for objects of Kubernetes repeat them."""
_REMEMBERED = 50_000

_registered: dict[str, str] = {}
_longest_first: tuple[tuple[str, str], ...] = ()
_generation = 0
"""Of the register: what was remembered before a change of it counts no more."""
_registry = threading.Lock()


def register_secret(value: str, shown_as: str = SECRET) -> None:
    """From now on this very value, plain or encoded, is never written. Values under 4 characters are ignored."""
    if len(value) < 4 or _PLACEHOLDER.fullmatch(value):
        return
    raw = value.encode()
    forms = {value, quote(value, safe=""), json.dumps(value)[1:-1]}
    forms |= {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    with _registry:
        if forms <= _registered.keys():
            return
        _registered.update(dict.fromkeys(forms, shown_as))
        _put_in_order()


def forget_secrets() -> None:
    """Empties the register (for tests)."""
    with _registry:
        _registered.clear()
        _put_in_order()


def _put_in_order() -> None:
    """After each change of the register: a secret that is part of another must not spoil it."""
    global _longest_first, _generation
    _longest_first = tuple(sorted(_registered.items(), key=lambda pair: -len(pair[0])))
    _generation += 1


def redact(value: object) -> object:
    """The same thing without secrets: text, bytes (become text), mappings and sequences, nested as they are."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray):
        return redact_text(bytes(value).decode(errors="replace"))
    if isinstance(value, Mapping):
        return _redact_mapping(value)
    if isinstance(value, list | tuple | set | frozenset):
        return _redact_sequence(list(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """One text without secrets."""
    return _redact_short(text, _generation) if len(text) <= _SHORT else _redact_any(text)


@lru_cache(_REMEMBERED)
def _redact_short(text: str, generation: int) -> str:
    return _redact_any(text)


def _redact_any(text: str) -> str:
    """Each pattern is tried only where something says that it may be there: most texts have none of it."""
    for value, shown_as in _longest_first:
        if value in text:
            text = text.replace(value, shown_as)
    if "-----BEGIN" in text:
        text = _PEM.sub(PRIVATE_KEY, text)
    if "ey" in text:
        text = _JWT.sub(TOKEN, text)
    if _may_have_header(text):
        text = _HEADER.sub(_hide_header, text)
    text = _BEARER.sub(rf"\1 {TOKEN}", text)
    if "=" in text:
        text = _QUERY.sub(lambda match: match["name"] + TOKEN, text)
    if "://" in text:
        text = _USERINFO.sub(lambda match: match["head"] + SECRET, text)
    if ":" not in text and "=" not in text:
        return text
    if '"' in text:
        text = _JSON_FIELD.sub(_hide_json_field, text)
    return _PLAIN_FIELD.sub(_hide_plain_field, text)


def _redact_mapping(value: Mapping[object, object]) -> dict[str, object]:
    is_secret = value.get("kind") == "Secret"
    is_selector = bool(_SELECTOR_FIELDS & {str(name) for name in value})
    clean: dict[str, object] = {}
    for key, item in value.items():
        name = str(key)
        if is_secret and name in ("data", "stringData") and isinstance(item, Mapping):
            clean[name] = dict.fromkeys(map(str, item), SECRET)
        elif name == "key" and is_selector:
            clean[name] = redact(item)
        else:
            clean[redact_text(name)] = _redact_field(name, item)
    return clean


def _redact_sequence(items: list[object]) -> list[object]:
    """A sequence; two texts of which the first names a secret are a header as clients hold it."""
    if len(items) == 2 and isinstance(items[0], str) and _sensitive(items[0]):
        return [items[0], _redact_field(items[0], items[1])]
    return [redact(item) for item in items]


def _redact_field(name: str, item: object) -> object:
    if isinstance(item, bytes | bytearray):
        item = bytes(item).decode(errors="replace")
    if _HEADER_NAME.fullmatch(name):
        return (
            [_hide_value(name, str(one)) for one in item]
            if isinstance(item, list | tuple)
            else _hide_value(name, str(item))
        )
    if isinstance(item, str) and _sensitive(name):
        return _placeholder_for(name, item)
    if isinstance(item, int | float) and not isinstance(item, bool) and _words(name) & _ALWAYS:
        return _placeholder_for(name, str(item))
    if isinstance(item, list | tuple) and _sensitive(name):
        return [_redact_field(name, one) for one in item]
    return redact(item)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(name)}


def _sensitive(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _HARMLESS_ENDINGS:
        return False
    return bool(set(words) & (_ALWAYS | _TEXTS))


def _placeholder_for(name: str, value: str) -> str:
    if not value or _PLACEHOLDER.fullmatch(value):
        return value
    return TOKEN if _words(name) & {"token", "jwt"} else SECRET


def _hide_value(name: str, value: str) -> str:
    """A header's value: the scheme is kept, since it is part of the story."""
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in ("bearer", "basic", "digest"):
        return f"{scheme} {rest if _PLACEHOLDER.fullmatch(rest) else TOKEN}"
    return value if not value or _PLACEHOLDER.fullmatch(value) else TOKEN if "auth" in name.lower() else SECRET


def _hide_header(match: re.Match[str]) -> str:
    shown = _hide_value(match["name"], (match["scheme"] or "") + match["value"].strip())
    return f"{match['name']}{match['sep']}{shown}"


def _hide_json_field(match: re.Match[str]) -> str:
    if not _sensitive(match["name"]) or (match["name"] == "key" and _nearby_selector(match)):
        return match[0]
    return f"{match['open']}{match['name']}{match['mid']}{_placeholder_for(match['name'], match['value'])}"


def _nearby_selector(match: re.Match[str]) -> bool:
    around = match.string[: match.start()].rpartition("{")[2] + match.string[match.end() :].partition("}")[0]
    return any(f'"{name}' in around for name in _SELECTOR_FIELDS)


def _hide_plain_field(match: re.Match[str]) -> str:
    """``password=x``, YAML: ``password: x``. A lone ``key:`` may be a selector: hidden only when it looks random."""
    name, value = match["name"], match["value"]
    if _HEADER_NAME.fullmatch(name) or not _sensitive(name):
        return match[0]
    if not _words(name) & _ALWAYS and not (
        len(value) >= 12 and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    ):
        return match[0]
    return f"{name}{match['mid']}{_placeholder_for(name, value)}"


@dataclass(frozen=True)
class Leak:
    """A secret found in a written file."""

    file: Path
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}"


def scan(path: Path) -> list[Leak]:
    """Looks through written files (a file, or all below a folder) for what should have been removed."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    return [leak for file in files for leak in _scan_file(file)]


def _scan_file(file: Path) -> Iterator[Leak]:
    known = tuple(value for value, _ in _longest_first)
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if ("eyJ" in line or "eyA" in line) and _JWT.search(line):
                yield Leak(file, number, "a JSON web token")
            if "PRIVATE KEY-----" in line and "-----BEGIN" in line:
                yield Leak(file, number, "a private key")
            if any(value in line for value in known):
                yield Leak(file, number, "a registered secret")
            if _may_have_header(line) and any(not _is_hidden(match) for match in _HEADER.finditer(line)):
                yield Leak(file, number, "a credential in a header")


def _may_have_header(text: str) -> bool:
    """Cheap, and true for every text that `_HEADER` finds something in: platforms' logs are long."""
    lowered = text.lower()
    return any(part in lowered for part in ("authorization", "api-key", "cookie", "-token"))


def _is_hidden(match: re.Match[str]) -> bool:
    """Whether a header in a written line has a placeholder, or is prose rather than a credential."""
    value = match["value"].strip().rstrip("&;,")
    return bool(value.startswith("$")) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]{20,}", value)
