"""Installs layers on a Kubernetes cluster: those that do not depend on one another at the same time."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.layers.catalogue import Layer
from inferencebox.layers.documents import Kitchen
from inferencebox.layers.labels import INSTANCE, LAYER
from inferencebox.layers.others import Others
from inferencebox.layers.readiness import Pulse, Target, targets, wait_until_ready
from inferencebox.manifests import Document
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube, KubeReply

NAMESPACE = "inferencebox"
"""Ours in the cluster: what is installed is written down there."""
RECORD = "layers"
LAYER_SECONDS = 300.0
APPLY_AT_ONCE = 4
FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount")
PASSING = (
    "failed calling webhook", "no endpoints available", "connection refused", "the server has no resource",
    "not found", "x509", "context deadline exceeded", "InternalError", "etcdserver",
)  # fmt: skip
"""Refusals that pass: a webhook or a kind that is being installed, not yet reachable."""
UNCHANGEABLE = {"Pod", "Job"}
"""Kinds of which nearly nothing can be changed: another one takes the place of the one that is there."""
REMOVAL_SECONDS = 30.0
Tell = Callable[[str, str, float], None]


@dataclass
class Record:
    """What is installed, written in the cluster itself: layer -> fingerprint of what it was made of."""

    kube: Kube
    instance: str = "default"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> dict[str, str]:
        reply = self.kube.get("configmap", RECORD, NAMESPACE)
        return dict(reply.require().get("data") or {}) if reply.ok else {}

    def write(self, layer: str, fingerprint: str) -> None:
        """Note that a layer is ready."""
        with self._lock:
            if not self.kube.get("namespace", NAMESPACE).ok:
                self.kube.apply([namespace(NAMESPACE, {INSTANCE: self.instance})])
            self._change({layer: fingerprint})

    def forget(self, layer: str) -> None:
        """Note that a layer is being changed: it is whole again when it is written."""
        with self._lock:
            if self.kube.get("configmap", RECORD, NAMESPACE).ok:
                self.kube.patch("configmap", RECORD, NAMESPACE, {"data": {layer: None}}).require()

    def _change(self, data: Mapping[str, str]) -> None:
        if self.kube.patch("configmap", RECORD, NAMESPACE, {"data": dict(data)}).ok:
            return
        metadata = {"name": RECORD, "namespace": NAMESPACE, "labels": {INSTANCE: self.instance}}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
        self.kube.create(document).require()


@dataclass
class Installer:
    """Brings layers into one cluster.

    Args:
        kube: the cluster.
        kitchen: makes the layers' objects.
        tell: is told (layer, what it waits for, seconds since it began).
        seconds: how long one layer may take.
        others: spares what others made; none on a cluster of our own.
    """

    kube: Kube
    kitchen: Kitchen
    tell: Tell
    seconds: float = LAYER_SECONDS
    others: Others | None = None
    record: Record = field(init=False)
    changed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record = Record(self.kube, self.kitchen.instance)
        self._installed = self.record.read()

    def steps(self, layers: Mapping[str, Layer]) -> dict[str, dag.Step]:
        """One step for each layer."""
        return {
            name: dag.Step(partial(self.install, layer), [each for each in layer.after if each in layers])
            for name, layer in layers.items()
        }

    def install(self, layer: Layer) -> None:
        """Make sure that a layer is there as it should be, and ready. One that is there already is only looked at.

        Raises:
            SetupProblem: what is wrong, with the object and its last events.
        """
        began = time.monotonic()
        tell = partial(self._tell, layer.name, began)
        wanted = self.kitchen.fingerprint(layer)
        if self._installed.get(layer.name) == wanted:
            return
        self.record.forget(layer.name)
        self.changed.append(layer.name)
        deadline = began + self.seconds
        self._make_namespace(layer)
        for part in self.kitchen.parts(layer):
            early = [document for document in part if document["kind"] not in layer.last]
            late = [document for document in part if document["kind"] in layer.last]
            for documents in filter(None, (early, late)):
                self.apply(documents, deadline, tell)
                awaited = [document for document in documents if document["kind"] not in layer.unawaited]
                self._await(targets(awaited), deadline, tell)
        self._await(targets([], layer.ready), deadline, tell)
        self.record.write(layer.name, wanted)

    def _make_namespace(self, layer: Layer) -> None:
        """Only if it is not there: what is said of it elsewhere stays as it is."""
        if not self.kube.get("namespace", layer.namespace).ok:
            labels = {**layer.labels, LAYER: layer.name, INSTANCE: self.kitchen.instance}
            self.kube.create(namespace(layer.namespace, labels))

    def apply(self, documents: Sequence[Document], deadline: float, tell: Callable[[str], None]) -> None:
        """Apply, in waves: what others refer to first. What is refused only for the moment is tried again."""
        for wave in _waves(documents):
            left, pulse = list(wave), Pulse(self.kube)
            while left:
                with ThreadPoolExecutor(APPLY_AT_ONCE) as pool:
                    replies = list(pool.map(self._apply_one, left))
                refused = [(one, reply) for one, reply in zip(left, replies, strict=True) if not reply.ok]
                lasting = [(one, reply) for one, reply in refused if not _passes(reply)]
                if lasting or (refused and time.monotonic() > deadline):
                    document, reply = (lasting or refused)[0]
                    raise SetupProblem(f"the cluster refuses {_name(document)}: {reply}", "see the layer's manifests")
                left = [document for document, _ in refused]
                if left:
                    pulse.check()
                    tell(f"its webhooks ({_name(left[0])})")
                    time.sleep(0.5)  # not `poll`: a refusal that lasts, and a cluster that is gone, end this early

    def _apply_one(self, document: Document) -> KubeReply:
        allowed = self.others.spare(document) if self.others else document
        if allowed is None:
            return KubeReply(200)
        document = allowed
        reply = self.kube.apply([document])[0]
        if reply.cause == "schema" and document["kind"] in UNCHANGEABLE:
            self._remove(document)
            reply = self.kube.apply([document])[0]
        return reply

    def _remove(self, document: Document) -> None:
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        self.kube.delete(document["kind"], name, namespace)
        poll(lambda: self.kube.get(document["kind"], name, namespace).status == 404, REMOVAL_SECONDS, every=0.2)

    def _await(self, wanted: Iterable[Target], deadline: float, tell: Callable[[str], None]) -> None:
        for target in wanted:
            wait_until_ready(self.kube, target, deadline, tell)

    def _tell(self, layer: str, began: float, what: str) -> None:
        self.tell(layer, f"waits for {what}", time.monotonic() - began)


def _waves(documents: Sequence[Document]) -> list[list[Document]]:
    waves = [[document for document in documents if document["kind"] == kind] for kind in FIRST]
    waves.append([document for document in documents if document["kind"] not in FIRST])
    return [wave for wave in waves if wave]


def _passes(reply: KubeReply) -> bool:
    words = f"{reply.reason} {reply.message}"
    return reply.error is not None or any(each in words for each in PASSING)


def _name(document: Document) -> str:
    metadata = document["metadata"]
    where = f" in {metadata['namespace']}" if "namespace" in metadata else ""
    return f"{document['kind']} {metadata.get('name', '')}{where}"


def namespace(name: str, labels: Mapping[str, str]) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
