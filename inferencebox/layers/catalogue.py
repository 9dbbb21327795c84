"""Reads what there is to install: `manifests/layers/<layer>/layer.yaml`, one folder a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferencebox.errors import SetupProblem
from inferencebox.paths import manifests_dir

FILE = "layer.yaml"
FIX = "see manifests/README.md"


@dataclass(frozen=True)
class Chart:
    """A Helm chart out of a layer's module.

    Args:
        source: layer of the release whose files have it.
        path: folder of the chart among them.
        name: of the Helm release.
        values: what differs from the chart's own values.
        fill: texts of the chart's files to be replaced first: what its project's release job would fill in.
        beside: further files of the same source that belong to its templates (the chart's project puts them there).
    """

    source: str
    path: str
    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    fill: Mapping[str, str] = field(default_factory=dict)
    beside: Sequence[str] = ()


@dataclass(frozen=True)
class Files:
    """Manifest files out of a layer's module.

    Args:
        source: layer of the release whose files have them.
        paths: patterns, in order.
    """

    source: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Own:
    """Manifest files of ours.

    Args:
        paths: relative to `manifests/`.
        values: for `${name}` in them, beside those that every layer is given.
    """

    paths: Sequence[str]
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """Objects that code of ours makes.

    Args:
        by: name of the maker.
    """

    by: str


Part = Chart | Files | Own | Made


PARTS: Mapping[str, type[Chart] | type[Files] | type[Own] | type[Made]] = {
    "chart": Chart,
    "files": Files,
    "own": Own,
    "made": Made,
}


@dataclass(frozen=True)
class Selected:
    """Objects that programs of a layer make, not we.

    Args:
        kind: as kubectl takes it.
        namespace: none for any, or for what is not in one.
        labels: selector; or
        name: the object's name.
    """

    kind: str
    namespace: str | None = None
    name: str = ""
    labels: str = ""


@dataclass(frozen=True)
class Layer:
    """One installable part.

    Args:
        purpose: what it is for, for people.
        release: the layer of the release whose version it has; empty for ours.
        after: layers that must be ready before.
        namespace: where its objects are that name none; made if it is not there.
        labels: of that namespace.
        parts: what is applied, one after the other, each when the one before is ready.
        images: reference in the manifests -> name of the image in the release.
        changes: merged into the object of that kind and name.
        without: kinds of its objects that are left out.
        last: kinds applied when the rest of their part is ready: they need its webhooks.
        unawaited: kinds of its objects that get ready only by later layers.
        ready: what else it is ready by.
        leaves: what its programs make in places that are not theirs, and leave there.
        pods: whether its objects run any: then the nodes need its images first.
        option: what a platform has to be asked for to have it; empty: every platform has it.
        gives: capability that a platform has by it alone. Nothing else needs such a layer: where its images can't be
            had (only a registry has them), it is left out, and the capability says why.
        small_cpu: what each of its containers asks for on a small machine, where `small.yaml` gives too little.
        small_args: name of a container -> arguments that it gets besides on a small machine.
    """

    name: str
    purpose: str
    folder: Path
    release: str = ""
    after: Sequence[str] = ()
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[Mapping[str, Any]] = ()
    without: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    unawaited: frozenset[str] = frozenset()
    ready: Sequence[Selected] = ()
    leaves: Sequence[Selected] = ()
    pods: bool = True
    option: str = ""
    gives: str = ""
    small_cpu: str = ""
    small_args: Mapping[str, Sequence[str]] = field(default_factory=dict)


def layers(folder: Path | None = None) -> dict[str, Layer]:
    """Every layer there is, by name.

    Raises:
        SetupProblem: a file is not as it should be, or a layer comes after one that is not there, or may not be.
    """
    found = {file.parent.name: _read(file) for file in sorted((folder or _folder()).glob(f"*/{FILE}"))}
    for layer in found.values():
        if unknown := sorted(set(layer.after) - found.keys()):
            raise SetupProblem(f"the layer {layer.name} comes after {', '.join(unknown)}, which is no layer", FIX)
        if spared := [name for name in layer.after if found[name].gives]:
            raise SetupProblem(f"the layer {layer.name} comes after {spared[0]}, which may be left out", FIX)
    return found


def _folder() -> Path:
    return manifests_dir() / "layers"


def _read(file: Path) -> Layer:
    try:
        raw = dict(yaml.safe_load(file.read_text()))
        return Layer(
            name=file.parent.name,
            folder=file.parent,
            parts=[_part(part) for part in raw.pop("parts", [])],
            ready=[Selected(**each) for each in raw.pop("ready", [])],
            leaves=[Selected(**each) for each in raw.pop("leaves", [])],
            without=frozenset(raw.pop("without", [])),
            last=frozenset(raw.pop("last", [])),
            unawaited=frozenset(raw.pop("unawaited", [])),
            **raw,
        )
    except (TypeError, ValueError, KeyError, yaml.YAMLError) as problem:
        raise SetupProblem(f"{file} does not describe a layer ({' '.join(str(problem).split())})", FIX) from None


def _part(raw: Mapping[str, Any]) -> Part:
    ((kind, fields),) = raw.items()
    return PARTS[kind](**fields)
