"""What is on a cluster: read from its workloads, definitions and nodes. Nothing is changed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml
from kubernetes.utils import parse_quantity
from pydantic import Field

from inferencebox.layers.install import NAMESPACE, RECORD
from inferencebox.layers.labels import owner_of
from inferencebox.probes.kubernetes import Kube
from inferencebox.release import Pin

VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?")
VERSION_LABEL = "app.kubernetes.io/version"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet")
MOST_IMAGES_TOLD = 50
"""A kubelet tells no more images of its node than this (its default `nodeStatusMaxImages`)."""
GIB = 1 << 30
Object = Mapping[str, Any]


class Part(Pin):
    """How one part is recognised (``data/detection.yaml``)."""

    layer: str
    makes: list[str] = Field(default_factory=list)
    image: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    definition: str = ""
    annotation: str = ""
    namespace: str = ""
    unusable: str = ""


class Agent(Pin):
    """A program whose presence says something of the cluster."""

    name: str
    image: str
    source: str = ""


class Detection(Pin):
    parts: list[Part]
    enforcers: list[Agent]
    meshes: list[Agent]


@cache
def detection() -> Detection:
    """What can be recognised."""
    content = resources.files("inferencebox").joinpath("data/detection.yaml").read_text()
    return Detection.model_validate(yaml.safe_load(content))


@dataclass(frozen=True)
class Sighting:
    """A part that is on the cluster.

    Args:
        layer: as releases call it.
        version: empty if it does not say.
        where: the object it was recognised by, for people.
        namespace: of that object; empty for what is not in one.
        owner: name of the platform of ours that made it; empty for what others made.
    """

    layer: str
    version: str
    where: str
    namespace: str
    owner: str


@dataclass(frozen=True)
class Nodes:
    """The nodes together.

    Args:
        cpu: cores that pods may have.
        memory_gib: of that too.
        images: references that are on every node; none if they do not tell all.
    """

    count: int = 0
    cpu: float = 0
    memory_gib: float = 0
    images: frozenset[str] | None = None


@dataclass(frozen=True)
class Survey:
    """What is on a cluster.

    Args:
        context: what its kubeconfig calls it.
        url: of its API.
        kubernetes: its version.
        nodes: what it can run.
        sightings: layer -> what there is of it.
        owner: name of the platform of ours that is there, whole or not.
        installed: layers of that which were completed.
        facts: what else there is to know, for people: name -> text.
    """

    context: str
    url: str
    kubernetes: str
    nodes: Nodes = field(default_factory=Nodes)
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    owner: str = ""
    installed: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def survey(kube: Kube, context: str, version: str) -> Survey:
    """Look at a cluster.

    Args:
        context: what its kubeconfig calls it.
        version: of its Kubernetes.
    """
    workloads = [{**each, "kind": kind} for kind in WORKLOADS for each in kube.list(kind).items]
    definitions = {each["metadata"]["name"]: each for each in kube.list("customresourcedefinitions").items}
    record = kube.get("configmap", RECORD, NAMESPACE)
    ours = kube.get("namespace", NAMESPACE)
    return Survey(
        context=context,
        url=kube.url,
        kubernetes=version,
        nodes=_nodes(kube.list("nodes").items),
        sightings={each.layer: each for each in _sightings(workloads, definitions)},
        owner=owner_of(ours.object) if ours.ok else "",
        installed=sorted((record.object.get("data") or {}) if record.ok else {}),
        facts=_facts(kube, workloads),
    )


def _sightings(workloads: Sequence[Object], definitions: Mapping[str, Object]) -> Iterator[Sighting]:
    for part in detection().parts:
        if part.definition in definitions:
            metadata = definitions[part.definition]["metadata"]
            told = (metadata.get("annotations") or {}).get(part.annotation, "")
            where = f"definition {part.definition}"
            yield Sighting(part.layer, told, where, "", owner_of(definitions[part.definition]))
        fitting = [each for each in workloads if _labels(each).items() >= part.labels.items()]
        found = next(running(fitting, part.image), None) if part.image else None
        if found:
            workload, reference = found
            metadata = workload["metadata"]
            where = f"{workload['kind'].lower()} {metadata['name']} in {metadata['namespace']}"
            version = version_of(workload, reference)
            yield Sighting(part.layer, version, where, metadata["namespace"], owner_of(workload))


def running(workloads: Iterable[Object], image: str) -> Iterator[tuple[Object, str]]:
    """Workloads with a container of that image, whatever registry it comes from, and its whole reference."""
    for workload in workloads:
        for container in workload["spec"]["template"]["spec"]["containers"]:
            repository, _ = split(container.get("image", ""))
            if f"/{repository}".endswith(f"/{image}"):
                yield workload, container["image"]


def version_of(workload: Object, reference: str) -> str:
    """What a workload says about its version: its image's tag, or its label."""
    for told in (split(reference)[1], _labels(workload).get(VERSION_LABEL, "")):
        if found := VERSION.search(told):
            return found[0]
    return ""


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def split(reference: str) -> tuple[str, str]:
    """An image's repository and tag, whatever digest is behind them."""
    named, _, _ = reference.partition("@")
    repository, _, tag = named.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (named, "")


def _nodes(found: Sequence[Object]) -> Nodes:
    told = [{name for image in node["status"].get("images") or [] for name in image["names"]} for node in found]
    counts = [len(node["status"].get("images") or []) for node in found]
    complete = bool(found) and max(counts) < MOST_IMAGES_TOLD
    return Nodes(
        count=len(found),
        cpu=sum(quantity(node["status"]["allocatable"]["cpu"]) for node in found),
        memory_gib=round(sum(quantity(node["status"]["allocatable"]["memory"]) for node in found) / GIB, 1),
        images=frozenset.intersection(*map(frozenset, told)) if complete else None,
    )


def quantity(text: str) -> float:
    """A quantity as Kubernetes writes it: 500m, 2, 16Gi."""
    return float(parse_quantity(text))  # type: ignore[no-untyped-call]


def _facts(kube: Kube, workloads: Sequence[Object]) -> dict[str, str]:
    known = detection()
    enforcers = [agent.name for agent in known.enforcers if any(running(workloads, agent.image))]
    meshes = [agent.name for agent in known.meshes if any(running(workloads, agent.image))]
    classes = [
        f"{each['metadata']['name']} ({each['spec']['controllerName']})" for each in kube.list("gatewayclasses").items
    ]
    storage = [
        each["metadata"]["name"]
        for each in kube.list("storageclasses").items
        if (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    return {
        "gateway classes": ", ".join(classes) or "none",
        "mesh": ", ".join(meshes) or "none",
        "NetworkPolicies": f"enforced by {', '.join(enforcers)}" if enforcers else "nobody known enforces them",
        "default storage class": ", ".join(storage) or "none",
    }
