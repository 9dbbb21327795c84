"""A Kubernetes API in memory: as much of `Kube` as the sabotage mechanisms use."""

import copy
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from inferencebox.probes.kubernetes import KubeReply

Document = dict[str, Any]


class FakeKube:
    """Objects by kind, namespace and name, with resource versions and watches."""

    def __init__(self, *documents: Document) -> None:
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.watchers: list[tuple[str, queue.Queue[tuple[str, Document] | None]]] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        for document in documents:
            self.put(document)

    def put(self, document: Document) -> Document:
        """Create or replace, as somebody else would."""
        with self._lock:
            key = self._key(document)
            known = self.objects.get(key)
            kept = copy.deepcopy(document)
            kept.setdefault("apiVersion", "v1")
            number = next(self._numbers)
            uid = known["metadata"]["uid"] if known else f"uid-{number}"
            kept["metadata"] |= {"resourceVersion": str(number), "uid": uid, "managedFields": [{"manager": "x"}]}
            self.objects[key] = kept
            self._tell("MODIFIED" if known else "ADDED", kept)
            return kept

    def spec(self, kind: str, name: str, namespace: str = "") -> Any:
        return self.objects[kind, namespace, name].get("spec")

    # --- what Kube has

    def list(self, kind: str) -> KubeReply:
        found = [copy.deepcopy(each) for (of, _, _), each in self.objects.items() if of == kind]
        for each in found:  # as the API server does in lists
            each.pop("kind")
            each.pop("apiVersion")
        return KubeReply(200, object={"apiVersion": "v1", "kind": f"{kind}List", "items": found})

    def get(self, kind: str, name: str, namespace: str | None = None) -> KubeReply:
        found = self._named(kind, namespace, name)
        return KubeReply(200, object=copy.deepcopy(found)) if found else KubeReply(404, "NotFound")

    def replace(self, document: Document) -> KubeReply:
        with self._lock:
            known = self.objects.get(self._key(document))
            if known is None:
                return KubeReply(404, "NotFound")
            if document["metadata"].get("resourceVersion", "") not in ("", known["metadata"]["resourceVersion"]):
                return KubeReply(409, "Conflict")
            return KubeReply(200, object=copy.deepcopy(self.put(document)))

    def apply(self, document: Document, manager: str = "") -> "Sequence[KubeReply]":
        return [KubeReply(200, object=copy.deepcopy(self.put(document)))]

    def delete(self, kind: str, name: str, namespace: str | None = None) -> KubeReply:
        with self._lock:
            gone = self._named(kind, namespace, name)
            if gone is None:
                return KubeReply(404, "NotFound")
            return KubeReply(200, object=self.objects.pop(self._key(gone)))

    def watch(self, kind: str, seconds: int = 0) -> Iterator[tuple[str, Document]]:
        events: queue.Queue[tuple[str, Document] | None] = queue.Queue()
        with self._lock:
            for (of, _, _), each in self.objects.items():
                if of == kind:
                    events.put(("ADDED", copy.deepcopy(each)))
            self.watchers.append((kind, events))
        while (event := events.get()) is not None:
            yield event

    def _named(self, kind: str, namespace: str | None, name: str) -> Document | None:
        """A kind may be named with its group."""
        plain, _, group = kind.partition(".")
        found = self.objects.get((plain, namespace or "", name))
        return found if found and found["apiVersion"].startswith(group) else None

    def _tell(self, event: str, document: Document) -> None:
        for kind, events in self.watchers:
            if kind == document["kind"]:
                events.put((event, copy.deepcopy(document)))

    @staticmethod
    def _key(document: Document) -> tuple[str, str, str]:
        metadata = document["metadata"]
        return document["kind"], metadata.get("namespace", ""), metadata["name"]
