"""Places in a Kubernetes document by path: `/spec/http/*/timeout`, where `*` is every entry of a list or mapping, and a
number one entry of a list."""

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
VOLATILE = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")


def set_at(document: Document, path: str, value: object) -> None:
    """Put a value at every place that the path names; the last step may be new."""
    *way, last = _steps(path)
    for parent in _places(document, way):
        if last == "*":
            for key in _keys(parent):
                parent[key] = value
        elif isinstance(parent, dict):
            parent[last] = value


def append_at(document: Document, path: str, value: object) -> None:
    """Add an entry to every list that the path names."""
    for place in _places(document, _steps(path)):
        if isinstance(place, list):
            place.append(value)


def remove_at(document: Document, path: str) -> None:
    """Take away what the path names, where it is there."""
    *way, last = _steps(path)
    for parent in _places(document, way):
        if isinstance(parent, dict):
            parent.pop(last, None)
        elif isinstance(parent, list) and last.isdigit():
            del parent[int(last) : int(last) + 1]


def content(document: Document) -> Document:
    """What somebody wanted of an object: neither its status nor what the API server notes."""
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key not in VOLATILE}
    return {**{key: value for key, value in document.items() if key != "status"}, "metadata": metadata}


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.strip("/").split("/")]


def _places(document: Any, way: list[str]) -> Iterator[Any]:
    if not way:
        yield document
        return
    step, *rest = way
    for key in _named(document, step):
        yield from _places(document[key], rest)


def _named(place: Any, step: str) -> list[Any]:
    """The entries of a list or mapping that a step names."""
    if step == "*":
        return _keys(place)
    if isinstance(place, list):
        return [int(step)] if step.isdigit() and int(step) < len(place) else []
    return [step] if isinstance(place, dict) and step in place else []


def _keys(place: Any) -> list[Any]:
    return list(range(len(place))) if isinstance(place, list) else list(place) if isinstance(place, dict) else []
