"""Changes objects of a kind that are there, and those that come or are changed while a sabotage lasts.

Tests bring objects of their own (a model's weights, a listener's limits): a break that they are to notice must hold for
these too.
"""

import copy
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from inferencebox.probes.kubernetes import Kube

from .documents import Document, content
from .remembered import Memory

Breaking = Callable[[Document], None]
WATCH_SECONDS = 300
PAUSE_SECONDS = 0.1


@dataclass
class Tampering:
    """One change, kept up until it ends.

    Args:
        kube: as the administrator.
        kind: of the objects.
        concerns: which objects.
        breaking: changes a document; one that it leaves as it is, is left alone.
        memory: where the objects as they were are remembered.
    """

    kube: Kube
    kind: str
    concerns: Callable[[Document], bool]
    breaking: Breaking
    memory: Memory
    _ours: dict[str, str] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def begin(self) -> int:
        """Change what is there, then keep watch. How many objects were changed."""
        changed = sum(self.look_at(document) for document in listed(self.kube, self.kind))
        self._thread = threading.Thread(target=self._watch, name=f"tampering with {self.kind}", daemon=True)
        self._thread.start()
        return changed

    def end(self) -> None:
        """Leave alone what comes from now on. The memory puts back the rest."""
        with self._lock:
            self._over.set()

    def look_at(self, document: Document) -> bool:
        """Break one object, unless it is no concern of ours or as we left it. Whether it was changed."""
        with self._lock:
            if self._over.is_set() or not self.concerns(document) or "deletionTimestamp" in document["metadata"]:
                return False
            uid = document["metadata"].get("uid", "")
            if self._ours.get(uid) == _print_of(document):
                return False
            broken = copy.deepcopy(document)
            self.breaking(broken)
            if _print_of(broken) == _print_of(document):
                return False
            self.memory.note("changed", document)
            reply = self.kube.replace(broken)
            if reply.ok:
                self._ours[uid] = _print_of(reply.object)
            return reply.ok

    def _watch(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            for event, document in self.kube.watch(self.kind, seconds=WATCH_SECONDS):
                if self._over.is_set():
                    return
                if event in ("ADDED", "MODIFIED"):
                    self.look_at(document)


def listed(kube: Kube, kind: str) -> list[Document]:
    """All objects of a kind, each complete: the entries of a list do not say what they are."""
    found = kube.list(kind).require()
    facts = {"apiVersion": found["apiVersion"], "kind": str(found["kind"]).removesuffix("List")}
    return [{**facts, **document} for document in found["items"]]


def _print_of(document: Document) -> str:
    """Tells whether two documents want the same."""
    wanted = content(document)
    facts = {key: wanted["metadata"].get(key) or {} for key in ("labels", "annotations")}
    return json.dumps({**wanted, "metadata": facts}, sort_keys=True)
