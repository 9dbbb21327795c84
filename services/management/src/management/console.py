"""Commands in kubectl's words that only read. No shell and no kubectl: each word is on a list, and the API is asked.

What may be read is limited a second time by the service account's role: no Secrets.
"""

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from management.errors import ApiError
from management.kube import TABLE, Kube, KubeError

VERBS = ("get", "describe", "logs", "top")
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PLAIN = re.compile(r"[A-Za-z0-9 ._/=,:-]+")
NAME = re.compile(r"[a-z0-9]([a-z0-9.:-]{0,251}[a-z0-9])?")
SELECTOR = re.compile(r"[A-Za-z0-9._/=,-]{1,300}")
FORMATS = ("wide", "json", "name")
LIMIT = 200_000
COLUMNS = 3


@dataclass(frozen=True)
class Kind:
    path: str
    plural: str
    names: tuple[str, ...]
    namespaced: bool


@dataclass
class Command:
    verb: str
    words: list[str]
    namespace: str = "default"
    everywhere: bool = False
    selector: str = ""
    format: str = ""
    tail: int = 100
    container: str = ""


def parse(text: str) -> Command:
    """The command, if every word of it may be said.

    Raises:
        ApiError: 400, with what is allowed.
    """
    if not PLAIN.fullmatch(text):
        raise _no("letters, digits and . _ / = , : - only: there is no shell here")
    words = shlex.split(text)
    if words and words[0] == "kubectl":
        words = words[1:]
    if not words or words[0] not in VERBS:
        raise _no(f"only {', '.join(VERBS)}")
    command = Command(words[0], [])
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            command.words.append(word)
            continue
        name, mark, value = word.partition("=")
        if name in ("-A", "--all-namespaces") and not mark:
            command.everywhere = True
            continue
        if name not in ("-n", "--namespace", "-l", "--selector", "-o", "--output", "--tail", "-c", "--container"):
            raise _no(f"the option {name[:40]} is not allowed: -n, -A, -l, -o, --tail, -c are")
        _set(command, name.lstrip("-"), value if mark else next(rest, ""))
    return command


def _set(command: Command, name: str, value: str) -> None:
    match name:
        case "n" | "namespace" if NAME.fullmatch(value):
            command.namespace = value
        case "l" | "selector" if SELECTOR.fullmatch(value):
            command.selector = value
        case "o" | "output" if value in FORMATS:
            command.format = value
        case "tail" if value.isdigit() and 0 < int(value) <= 5000:
            command.tail = int(value)
        case "c" | "container" if NAME.fullmatch(value):
            command.container = value
        case _:
            raise _no(f"{value[:40]!r} can't be the value of {name}")


def _no(why: str) -> ApiError:
    return ApiError(400, "this command is not allowed", why)


class Console:
    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._kinds: list[Kind] = []

    async def run(self, text: str) -> str:
        """What the command shows.

        Raises:
            ApiError: 400 not allowed or not understood, 403 nothing that is shown, 404 not there.
        """
        command = parse(text)
        try:
            result = await getattr(self, f"_{command.verb}")(command)
        except KubeError as error:
            status = error.status if error.status in (400, 403, 404) else 502
            raise ApiError(status, error.message[:500] or error.reason or "the API refused") from None
        return str(result)[:LIMIT]

    async def _get(self, command: Command) -> str:
        kind, names = await self._target(command)
        paths = [self._path(kind, command, name) for name in names] or [self._path(kind, command)]
        query = {"labelSelector": command.selector} if command.selector and not names else {}
        if command.format == "json":
            return "\n".join([json.dumps(await self._kube.read(path, query), indent=2) for path in paths])
        tables = [await self._kube.read(path, query, accept=TABLE) for path in paths]
        if command.format == "name":
            rows = [row for table in tables for row in table.get("rows", [])]
            return "\n".join(f"{kind.plural}/{row['object']['metadata']['name']}" for row in rows)
        return _table(tables, command)

    async def _describe(self, command: Command) -> str:
        kind, names = await self._target(command)
        if not names:
            raise _no("describe wants a name")
        parts = []
        for name in names:
            found = await self._kube.read(self._path(kind, command, name))
            found["metadata"].pop("managedFields", None)
            where = found["metadata"].get("namespace")
            events = await self._events(where, name) if where else []
            parts.append("\n".join([*_lines(found), *(["Events:", *events] if events else [])]))
        return "\n\n".join(parts)

    async def _events(self, namespace: str, name: str) -> list[str]:
        path = f"/api/v1/namespaces/{namespace}/events"
        listed = await self._kube.read(path, {"fieldSelector": f"involvedObject.name={name}"})
        return [f"  {e.get('type', '')} {e.get('reason', '')}: {e.get('message', '')}" for e in listed.get("items", [])]

    async def _logs(self, command: Command) -> str:
        if len(command.words) != 1:
            raise _no("logs wants the name of one pod")
        name = command.words[0].removeprefix("pod/").removeprefix("pods/")
        if not NAME.fullmatch(name):
            raise _no("that is no pod's name")
        query = {"tailLines": str(command.tail), **({"container": command.container} if command.container else {})}
        return str(await self._kube.read(f"/api/v1/namespaces/{command.namespace}/pods/{name}/log", query))

    async def _top(self, command: Command) -> str:
        what = command.words[0] if command.words else ""
        if what not in ("pods", "pod", "po", "nodes", "node", "no"):
            raise _no("top knows pods and nodes")
        root = "/apis/metrics.k8s.io/v1beta1"
        where = "" if what.startswith("no") or command.everywhere else f"/namespaces/{command.namespace}"
        listed = await self._kube.read(f"{root}{where}/{'nodes' if what.startswith('no') else 'pods'}")
        rows = [[item["metadata"]["name"], *_used(item)] for item in listed.get("items", [])]
        return _aligned([["NAME", "CPU", "MEMORY"], *rows])

    # --- what is asked for

    async def _target(self, command: Command) -> tuple[Kind, list[str]]:
        if not command.words:
            raise _no(f"{command.verb} wants a kind")
        wanted, mark, name = command.words[0].partition("/")
        names = [*([name] if mark else []), *command.words[1:]]
        if not all(NAME.fullmatch(each) for each in names):
            raise _no("that is no object's name")
        kind = await self._kind(wanted.lower())
        if kind.plural == "secrets" or "secret" in kind.plural:
            raise ApiError(403, "Secrets are not shown")
        return kind, names

    async def _kind(self, wanted: str) -> Kind:
        if "secret" in wanted:
            raise ApiError(403, "Secrets are not shown")
        for again in (False, True):
            if again or not self._kinds:
                self._kinds = await self._discover()
            for kind in self._kinds:
                if wanted in kind.names:
                    return kind
        raise _no(f"the API knows no kind {wanted[:60]!r}")

    async def _discover(self) -> list[Kind]:
        kinds = []
        for root in ("/api", "/apis"):
            listed = await self._kube.read(root, accept=DISCOVERY)
            for group in listed.get("items", []):
                own = group.get("metadata", {}).get("name", "")
                for version in group.get("versions", [])[:1]:
                    base = f"/apis/{own}/{version['version']}" if own else f"/api/{version['version']}"
                    kinds += [_kind(base, own, entry) for entry in version.get("resources", [])]
        return kinds

    def _path(self, kind: Kind, command: Command, name: str = "") -> str:
        root, _, plural = kind.path.rpartition("/")
        inside = kind.namespaced and not (command.everywhere and not name)
        where = f"/namespaces/{command.namespace}" if inside else ""
        return f"{root}{where}/{plural}" + (f"/{name}" if name else "")


def _kind(base: str, group: str, entry: dict[str, Any]) -> Kind:
    plain = {entry["resource"], entry.get("singularResource", ""), *entry.get("shortNames", [])}
    plain |= {entry.get("responseKind", {}).get("kind", "").lower()}
    names = {name for name in plain if name}
    if group:
        names |= {f"{name}.{group}" for name in names}
    return Kind(f"{base}/{entry['resource']}", entry["resource"], tuple(names), entry.get("scope") == "Namespaced")


def _table(tables: list[dict[str, Any]], command: Command) -> str:
    rows: list[list[str]] = []
    for table in tables:
        columns = table.get("columnDefinitions", [])
        shown = [i for i, c in enumerate(columns) if command.format == "wide" or c.get("priority", 0) == 0]
        head = [columns[i]["name"].upper() for i in shown]
        if not rows:
            rows.append([*(["NAMESPACE"] if command.everywhere else []), *head])
        for row in table.get("rows") or []:
            where = [row["object"]["metadata"].get("namespace", "")] if command.everywhere else []
            rows.append([*where, *(str(row["cells"][i]) for i in shown)])
    return _aligned(rows) if len(rows) > 1 else "No resources found."


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = (" ".join(cell.ljust(widths[i] + COLUMNS - 1) for i, cell in enumerate(row)).rstrip() for row in rows)
    return "\n".join(lines)


def _used(item: dict[str, Any]) -> list[str]:
    parts = [item["usage"]] if "usage" in item else [each["usage"] for each in item.get("containers", [])]
    return [" ".join(part.get(name, "") for part in parts) for name in ("cpu", "memory")]


def _lines(value: Any, depth: int = 0) -> list[str]:
    """Nested values, indented, as `describe` shows them."""
    pad = "  " * depth
    if isinstance(value, dict):
        lines = []
        for name, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                lines += [f"{pad}{name}:", *_lines(inner, depth + 1)]
            else:
                lines.append(f"{pad}{name}: {inner}")
        return lines
    if isinstance(value, list):
        return [line for inner in value for line in _item(inner, depth)]
    return [f"{pad}{value}"]


def _item(value: Any, depth: int) -> list[str]:
    lines = _lines(value, depth + 1)
    return [f"{'  ' * depth}- {lines[0].strip()}", *lines[1:]] if lines else []
