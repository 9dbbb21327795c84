"""Turns a layer's parts into Kubernetes objects: charts rendered by Helm, files of pinned modules, files of ours."""

import copy
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from inferencebox import manifests
from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import Chart, Files, Layer, Made, Own, Part
from inferencebox.layers.fingerprint import fingerprint
from inferencebox.layers.labels import INSTANCE, LAYER
from inferencebox.manifests import Document
from inferencebox.paths import manifests_dir

HOOK = "helm.sh/hook"
INSTALLING_HOOKS = {"pre-install", "post-install", "crd-install"}
CLUSTER_WIDE = {
    "APIService", "ClusterRole", "ClusterRoleBinding", "ClusterIssuer", "ClusterServingRuntime",
    "ClusterStorageContainer", "CustomResourceDefinition", "GatewayClass", "MutatingWebhookConfiguration", "Namespace",
    "PersistentVolume", "PriorityClass", "StorageClass", "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
}  # fmt: skip
WORKLOADS = {"Deployment", "DaemonSet", "StatefulSet", "Job"}
HELM_SECONDS = 120.0
HANDLERS = ("httpGet", "tcpSocket", "grpc", "exec")
"""How a probe asks."""


@dataclass(frozen=True)
class Small:
    """How containers are where machines are small: the vendors' requests and patience do not fit two cores.

    Args:
        requests: in place of the vendors'.
        liveness: of liveness probes, in place of the vendors'.
        startup: of probes that ask until a container is ready for the first time, as its readiness probe does.
        readiness: of readiness probes from then on.
        without: kinds that make no sense there.
    """

    requests: Mapping[str, str]
    liveness: Mapping[str, int]
    startup: Mapping[str, int]
    readiness: Mapping[str, int]
    without: frozenset[str]

    @classmethod
    def load(cls) -> "Small":
        raw = yaml.safe_load((manifests_dir() / "layers" / "small.yaml").read_text())
        return cls(**{**raw, "without": frozenset(raw["without"])})

    def fit(self, container: dict[str, Any], cpu: str = "", arguments: Sequence[str] = ()) -> None:
        """Change a container.

        Args:
            cpu: what it asks for in place of what the others do.
            arguments: what it gets besides its own.
        """
        if arguments:
            container["args"] = [*(container.get("args") or []), *arguments]
        requests = {**self.requests, **({"cpu": cpu} if cpu else {})}
        container["resources"] = {**(container.get("resources") or {}), "requests": requests}
        if probe := container.get("livenessProbe"):
            container["livenessProbe"] = {**probe, **self.liveness}
        if probe := container.get("readinessProbe"):
            asked = {name: probe[name] for name in HANDLERS if name in probe}
            container["startupProbe"] = {**asked, **self.startup}
            container["readinessProbe"] = {**asked, **self.readiness}


@dataclass(frozen=True)
class Maker:
    """Code that makes objects.

    Args:
        made_from: what decides them, as a text: two of the same give objects that do as well as each other.
        documents: the objects.
    """

    made_from: str
    documents: Callable[[], list[Document]]


@dataclass(frozen=True)
class Kitchen:
    """Makes the documents of layers.

    Args:
        files: layer of the release -> the files kept of its module.
        helm: the program.
        image: name of an image -> the reference by which nodes know it.
        values: for `${name}` in files of ours, and in charts' values and changes, where one that stands alone may be
            data as well as text.
        makers: by name, for objects that code makes.
        kubernetes: version that charts are rendered for.
        kubeconfig: of the cluster, where charts look for what they made before (keys, which then stay); none: nowhere.
        small: requests for small machines; none: as the vendors have it.
        instance: name of the platform whose objects they are.
    """

    files: Callable[[str], Path]
    helm: Path
    image: Callable[[str], str]
    values: Mapping[str, Any]
    makers: Mapping[str, Maker]
    kubernetes: str
    small: Small | None = None
    instance: str = "default"
    kubeconfig: Path | None = None

    def fingerprint(self, layer: Layer) -> str:
        """What the layer is made of: two of the same give the same objects."""
        files = [file for part in layer.parts for file in self._inputs(part)]
        filled = [part.values for part in layer.parts if isinstance(part, Chart)] + [*layer.changes]
        named = {*layer.images.values(), *_images_named(filled)}
        images = {name: self.image(name) for name in named}
        used = {name: value for name, value in self.values.items() if f"${{{name}}}" in self._own_text(layer)}
        small = {**asdict(self.small), "without": sorted(self.small.without)} if self.small else {}
        made = [self.makers[part.by].made_from for part in layer.parts if isinstance(part, Made)]
        texts = [*made, (layer.folder / "layer.yaml").read_text(), json.dumps([images, used, small], sort_keys=True)]
        return fingerprint(files, *texts)

    def parts(self, layer: Layer) -> list[list[Document]]:
        """The layer's objects, part by part; each in an order in which it finds what it refers to."""
        return [
            [self._dressed(layer, document) for document in self._cooked(layer, part) if self._wanted(layer, document)]
            for part in layer.parts
        ]

    def _inputs(self, part: Part) -> list[Path]:
        match part:
            case Chart():
                root = self.files(part.source)
                folders = [root / part.path, *(root / beside for beside in part.beside)]
                return [file for folder in folders for file in _below(folder)]
            case Files():
                return _matching(self.files(part.source), part.paths)
            case Own():
                return _matching(manifests_dir(), part.paths)
            case Made():
                return []

    def _own_text(self, layer: Layer) -> str:
        own = [file for part in layer.parts if isinstance(part, Own) for file in self._inputs(part)]
        return "".join(file.read_text() for file in [layer.folder / "layer.yaml", *own])

    def _cooked(self, layer: Layer, part: Part) -> list[Document]:
        match part:
            case Chart():
                return self._render(layer, part)
            case Files():
                return [document for file in self._inputs(part) for document in _parsed(file.read_text())]
            case Own():
                values = {**self.values, **part.values}
                return [document for file in self._inputs(part) for document in manifests.load(file, values)]
            case Made():
                return self.makers[part.by].documents()

    def _render(self, layer: Layer, chart: Chart) -> list[Document]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = self._prepared(chart, Path(scratch) / "chart")
            values = Path(scratch) / "values.yaml"
            values.write_text(yaml.safe_dump(_filled(chart.values, self.image, self.values)))
            command = [
                str(self.helm), "template", chart.name, str(folder), "--namespace", layer.namespace,
                "--values", str(values), "--include-crds", "--kube-version", self.kubernetes,
            ]  # fmt: skip
            if self.kubeconfig:
                command += ["--dry-run=server", "--kubeconfig", str(self.kubeconfig)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=HELM_SECONDS, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise SetupProblem(f"the chart of {layer.name} cannot be rendered: {last}", f"see {layer.folder}")
        return [document for document in _parsed(done.stdout) if _is_installed(document)]

    def _prepared(self, chart: Chart, target: Path) -> Path:
        """A copy that can be rendered: what the project's release job fills in, filled in."""
        root = self.files(chart.source)
        shutil.copytree(root / chart.path, target, copy_function=shutil.copyfile)
        for beside in chart.beside:
            for file in _below(root / beside):
                if file.suffix in (".yaml", ".yml"):
                    shutil.copyfile(file, target / "templates" / file.name)
        for template in [*target.rglob("*.tmpl.yaml"), *target.glob("*.template.yaml")]:
            template.rename(template.with_name(template.name.replace(".tmpl", "").replace(".template", "")))
        for name in ("Chart.yaml", "values.yaml"):
            for file in target.rglob(name):
                text = file.read_text()
                for old, new in chart.fill.items():
                    text = text.replace(old, new)
                file.write_text(text)
        return target

    def _wanted(self, layer: Layer, document: Document) -> bool:
        unwanted = layer.without | (self.small.without if self.small else frozenset())
        return document["kind"] not in unwanted

    def _dressed(self, layer: Layer, document: Document) -> Document:
        """The object as we apply it: in its namespace, ours by its label, with images and sizes of this platform."""
        document = _with_images(copy.deepcopy(document), {old: self.image(name) for old, name in layer.images.items()})
        for change in layer.changes:
            if (change["kind"], change["name"]) == (document["kind"], document["metadata"]["name"]):
                _merge(document, _filled(change["merge"], self.image, self.values))
        metadata = document["metadata"]
        if document["kind"] not in CLUSTER_WIDE:
            metadata.setdefault("namespace", layer.namespace)
        metadata["labels"] = {**(metadata.get("labels") or {}), LAYER: layer.name, INSTANCE: self.instance}
        metadata.pop("creationTimestamp", None)
        document.pop("status", None)
        if self.small and document["kind"] in WORKLOADS:
            for container in _containers(document):
                self.small.fit(container, layer.small_cpu, layer.small_args.get(container["name"], ()))
        return document


def _containers(workload: Document) -> list[dict[str, Any]]:
    pod = workload["spec"]["template"]["spec"]
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def _is_installed(document: Document) -> bool:
    """Whether installing makes it: not what Helm runs for tests, upgrades and removals only."""
    hooks = (document["metadata"].get("annotations") or {}).get(HOOK, "")
    return not hooks or bool(INSTALLING_HOOKS & {hook.strip() for hook in hooks.split(",")})


def _parsed(text: str) -> list[Document]:
    found: list[Document] = []
    for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if document and document.get("kind", "").endswith("List") and "items" in document:
            found += document["items"]
        elif document and "kind" in document:
            found.append(document)
    return found


def _below(folder: Path) -> list[Path]:
    if not folder.exists():
        raise SetupProblem(f"{folder} is not there", "the release must keep these files of its module: `files:`")
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else [folder]


def _matching(root: Path, patterns: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        files = sorted(file for file in root.glob(pattern) if file.is_file() and file.suffix in (".yaml", ".yml"))
        if not files:
            raise SetupProblem(f"{root} has no {pattern}", "the release must keep these files of its module: `files:`")
        found += [file for file in files if file not in found]
    return found


def _filled(data: Any, image: Callable[[str], str], values: Mapping[str, Any]) -> Any:
    """Data with `image:NAME` replaced by the image's reference (`repository:NAME`, `tag:NAME`: its halves).

    `${name}` is replaced by its value: by text within a text, by the value as it is where nothing else stands.
    """
    if isinstance(data, Mapping):
        return {key: _filled(value, image, values) for key, value in data.items()}
    if isinstance(data, list):
        return [_filled(value, image, values) for value in data]
    if isinstance(data, str):
        what, name = _image_named(data)
        if name:
            repository, _, tag = image(name).rpartition(":")
            return {"image": image(name), "repository": repository, "tag": tag}[what]
        for key, value in values.items():
            if data == f"${{{key}}}":
                return value
            data = data.replace(f"${{{key}}}", str(value))
    return data


def _image_named(text: str) -> tuple[str, str]:
    """`image:NAME`, `repository:NAME` or `tag:NAME`: which of them, and the name; two empty texts if it is none."""
    what, _, name = text.partition(":")
    return (what, name) if what in ("image", "repository", "tag") and name else ("", "")


def _images_named(data: Any) -> set[str]:
    """Names of all images that `_filled` would fill in."""
    if isinstance(data, Mapping):
        return _images_named([*data.values()])
    if isinstance(data, list):
        return {name for value in data for name in _images_named(value)}
    return {name for _, name in [_image_named(data)] if name} if isinstance(data, str) else set()


def _with_images(data: Any, references: Mapping[str, str]) -> Any:
    """Data with the references of images replaced, wherever a key says that it is one."""
    if isinstance(data, list):
        return [_with_images(value, references) for value in data]
    if not isinstance(data, dict):
        return data
    return {
        key: references.get(value, value)
        if isinstance(value, str) and key.endswith("image")
        else _with_images(value, references)
        for key, value in data.items()
    }


def _merge(target: dict[str, Any], change: Mapping[str, Any]) -> None:
    """A JSON merge patch; lists of named things are merged by name, as Kubernetes does."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value)
        elif isinstance(value, list) and _all_named(value) and _all_named(target.get(key)):
            _merge_named(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _all_named(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, Mapping) and "name" in item for item in items)


def _merge_named(target: list[dict[str, Any]], change: Iterable[Mapping[str, Any]]) -> None:
    known = {item["name"]: item for item in target}
    for item in change:
        if item["name"] in known:
            _merge(known[item["name"]], item)
        else:
            target.append(dict(copy.deepcopy(item)))
