"""The files of manifests/ are what they should be: each of some use, right field by field, and pinned."""

import json
import re
from pathlib import Path

import pytest
import yaml

from fixtures.scenario import scenario
from inferencebox import policies
from inferencebox.layers.catalogue import Own, layers
from inferencebox.layers.documents import CLUSTER_WIDE
from inferencebox.manifests import full_kind, load
from inferencebox.paths import manifests_dir
from inferencebox.release import Release

EXACT = re.compile(r"\d+\.\d+|^[0-9a-f]{8,40}$")
"""A version's number, or a commit: who tags images by commit has nothing else."""
DATA = (
    "gateway/limits/*.yaml",
    "images.yaml",
    "known-gaps.yaml",
    "layers/small.yaml",
    "mesh/proxies/*.yaml",
    "observability/alertmanager.yaml",
    "observability/dashboards/*.yaml",
    "observability/jaeger.yaml",
    "observability/kiali.yaml",
    "observability/kubernetes-audit.yaml",
    "observability/log-collector.yaml",
    "observability/loki.yaml",
    "observability/prices.yaml",
    "observability/prometheus.yaml",
    "observability/rules/*.yaml",
    "providers/*/discovery.yaml",
    "providers/*/logs.yaml",
    "providers/*/workloads.yaml",
    "providers/kind/**/*.yaml",
    "providers/local/envoy-gateway.yaml",
    "releases/*.yaml",
)
"""Files of manifests/ that are no objects of a platform's Kubernetes: settings of programs, lists, sets of values."""
FILLED_LATER = re.compile(r"@\w+@")
"""What is filled in when a node's image is made; no YAML before."""
DEFINED_WITH = {"cert-manager.io": "cert-manager"}
"""Group of kinds -> the capability without which a platform has no definition of them."""
FILLED_IN = {
    "instance": "nobodys",
    "edge_names": json.dumps(policies.edge_names()),
    **{f"{part}_configuration": "none" for part in ("telemetry", "loki", "log_collector", "grafana", "kiali")},
}
"""Values in the layers' own files that differ from one platform to another."""


@pytest.fixture
def files_read(monkeypatch):
    """Every file whose text has been read since the test began."""
    seen, read = set(), Path.read_text

    def noting(path, *arguments, **options):
        seen.add(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", noting)
    return seen


@scenario(
    "OPS-11",
    needs=("kubernetes",),
    why_no_sabotage="its subject is files, not what runs; the test shows that wrong ones are noticed",
    seconds=8,
)
def test_the_manifests_are_right_and_pinned(platform, kube, files_read, story):
    """Every shipped manifest is valid, the API server would take it as it is, and no version is left open."""
    documents = shipped(Release.load(platform.release))
    rendered = set(files_read)
    kinds = {(kind.group, kind.kind) for kind in kube.kinds()}
    rest = [document for document in documents if (group_of(document), document["kind"]) not in kinds]
    known = [document for document in documents if (group_of(document), document["kind"]) in kinds]
    there = {each["metadata"]["name"] for each in kube.list("namespaces").items}
    with story.then(f"the API server takes all {len(known)} objects, field by field, without storing them"):
        placed = [in_some_namespace(document, there) for document in known]
        refusals = [f"{reply.asked}: {reply}" for reply in kube.apply(placed, dry_run=True) if not reply.ok]
        assert not refusals, refusals[0]
    with story.then(f"the other {len(rest)} are complete, and of kinds that this platform is known to lack"):
        story.note("kinds that it lacks", ", ".join(sorted({full_kind(document) for document in rest})) or "none")
        lacking = {group for group, name in DEFINED_WITH.items() if platform.capabilities.get(name)}
        strange = {full_kind(document) for document in rest if group_of(document) not in lacking}
        assert not strange, f"nobody defines {', '.join(sorted(strange))}"
        assert all(document["metadata"]["name"] and document["spec"] for document in rest)
    with story.then("it would have noticed a field that does not exist"):
        route = next(document for document in documents if document["kind"] == "HTTPRoute")
        misspelt = {**route, "spec": {**route["spec"], "hostnamez": ["x"]}}
        (reply,) = kube.apply([misspelt], dry_run=True)
        assert reply.cause == "schema", f"a misspelt field got {reply}"
    with story.then("every file of the folder is one of those objects, or data that is read with them"):
        unused = nobodys(manifests_dir().rglob("*.yaml"), rendered)
        assert not unused, f"nobody applies {', '.join(unused)}"
        for file in data_files():
            assert list(yaml.safe_load_all(FILLED_LATER.sub("filled", file.read_text()))), f"{file} says nothing"
        assert nobodys([manifests_dir() / "mesh" / "nobodys.yaml"], rendered), "a file of nobody's was not noticed"
    with story.then("no image and no pin of a release is loose"):
        loose = [f"{image} in {kind}" for kind, image in images(documents) if is_loose(image)]
        assert not loose, "; ".join(loose)
        for name in Release.names():
            release = Release.load(name)
            loose = [layer for layer, pin in release.layers.items() if not EXACT.search(pin.version)]
            loose += [image.reference for image in release.images.values() if is_loose(image.reference)]
            loose += [
                program.image.reference
                for program in release.programs.values()
                if program.image and is_loose(program.image.reference)
            ]
            assert not loose, f"release {name}: {', '.join(loose)}"
        assert all(map(is_loose, ("envoyproxy/envoy", "redis:latest"))), "a loose image was not noticed"


def shipped(release):
    """Every object that files of ours make, on whichever provider, each once."""
    root = manifests_dir()
    batches = [*policies.batches("strict"), *policies.batches("strict", serverless=True)]
    documents = [document for batch in batches for document in batch]
    proxies = {"state": "/tmp", "envoy_version": "1.38.3", "envoy_image": "envoy:v1.38.3"}
    for place in ("local", "kubernetes"):
        documents += policies.proxy(place, proxies)
        documents += load(root / "providers" / place / "spans.yaml")
    documents += load(root / "management" / "crds")
    documents += load(root / "providers" / "local" / "telemetry.yaml")
    documents += policies.telemetry()
    service = {"image": release.images["model-server"].reference, "command": "[model]", "version": "v1"}
    scales = {"min_replicas": "0", "max_replicas": "3", "scale_target": "60"}
    documents += policies.inference_service("tenant-a", "dry-run", service | scales)
    documents += [document for layer in layers().values() for document in of_layer(layer, release)]
    return [json.loads(text) for text in dict.fromkeys(json.dumps(document) for document in documents)]


def of_layer(layer, release):
    """The objects of a layer's own files, in its namespace and with the release's images."""
    for part in (part for part in layer.parts if isinstance(part, Own)):
        for file in (file for path in part.paths for file in sorted(manifests_dir().glob(path))):
            text = json.dumps(load(file, FILLED_IN | dict(part.values)))
            for told, name in ((told, name) for told, name in layer.images.items() if name in release.images):
                text = text.replace(f'"image": "{told}"', f'"image": "{release.images[name].reference}"')
            for document in json.loads(text):
                if document["kind"] not in CLUSTER_WIDE:
                    document["metadata"].setdefault("namespace", layer.namespace)
                yield document


def in_some_namespace(document, there):
    """Where its own is not there, another: what is asked is whether the object is right."""
    metadata = document["metadata"]
    if metadata.get("namespace", "default") in there:
        return document
    return {**document, "metadata": {**metadata, "namespace": "default"}}


def group_of(document):
    return full_kind(document).partition(".")[2]


def data_files():
    """The files of `DATA`; each of its patterns is of some."""
    found = {pattern: [*manifests_dir().glob(pattern)] for pattern in DATA}
    stale = [pattern for pattern, files in found.items() if not files]
    assert not stale, f"there is no {', '.join(stale)} any more"
    return {file for files in found.values() for file in files}


def nobodys(files, rendered):
    """Those that are neither rendered nor data."""
    return sorted(str(file.relative_to(manifests_dir())) for file in {*files} - rendered - data_files())


def images(part, kind=""):
    """Every image that a document names."""
    if isinstance(part, dict):
        kind = kind or part.get("kind", "")
        for name, value in part.items():
            if name == "image" and isinstance(value, str):
                yield kind, value
            else:
                yield from images(value, kind)
    elif isinstance(part, list):
        for one in part:
            yield from images(one, kind)


def is_loose(image):
    if "@sha256:" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest", "main", "master", "dev")
