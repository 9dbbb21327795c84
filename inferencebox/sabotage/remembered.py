"""What has to be put back: kept in a file, so that a run that was killed can still be healed by the next one."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from inferencebox.manifests import full_kind
from inferencebox.paths import state_dir
from inferencebox.probes.kubernetes import Kube, KubeReply
from inferencebox.replacing import replace_file

from .documents import Document, content

Deed = Literal["changed", "deleted", "created"]
MANAGER = "kubectl"
"""Who had applied the platform's objects: what was deleted comes back as theirs."""
ATTEMPTS = 5


def memory_file(instance: str) -> Path:
    """Where a platform's undone sabotage is remembered: beside its state, so that it goes when the platform goes."""
    return state_dir(instance) / "sabotage.json"


class NotHealed(RuntimeError):
    """An object could not be put back as it was."""


@dataclass
class Memory:
    """Objects as they were before they were touched, the newest deed first to be undone.

    Args:
        file: where it is written before each deed.
    """

    file: Path
    deeds: list[tuple[Deed, Document]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, file: Path) -> "Memory":
        """What an earlier run left undone."""
        entries = json.loads(file.read_text()) if file.exists() else []
        return cls(file, [(cast(Deed, deed), document) for deed, document in entries])

    def note(self, deed: Deed, document: Document) -> None:
        """Remember how an object was, or (created) what it is. Of one that was changed again, the newest counts."""
        entry = (deed, identity(document))
        with self._lock:
            self.deeds = [known for known in self.deeds if (known[0], identity(known[1])) != entry]
            self.deeds.append((deed, content(document)))
            self._write()

    def undo(self, kube: Kube) -> None:
        """Put everything back.

        Raises:
            NotHealed: something could not be put back; it stays remembered.
        """
        while self.deeds:
            deed, document = self.deeds[-1]
            reply = {"changed": _restore, "deleted": _recreate, "created": _delete}[deed](kube, document)
            if not (reply.ok or reply.cause == "absent"):
                raise NotHealed(f"{' '.join(identity(document))} could not be put back: {reply}")
            self.deeds.pop()
            self._write()

    def _write(self) -> None:
        replace_file(self.file, json.dumps(self.deeds))


def identity(document: Document) -> tuple[str, str, str]:
    """Kind, namespace, name."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace") or "", metadata["name"]


def _restore(kube: Kube, document: Document) -> KubeReply:
    """What somebody else wrote meanwhile into its metadata stays; what it wants is as it was."""
    _, namespace, name = identity(document)
    for _ in range(ATTEMPTS):
        now = kube.get(full_kind(document), name, namespace or None)
        if not now.ok:
            return now
        current = now.object
        was = {
            **document,
            "metadata": {**document["metadata"], "resourceVersion": current["metadata"]["resourceVersion"]},
        }
        reply = kube.replace(was)
        if reply.cause != "conflict":
            break
    return reply


def _recreate(kube: Kube, document: Document) -> KubeReply:
    return kube.apply(document, manager=MANAGER)[0]


def _delete(kube: Kube, document: Document) -> KubeReply:
    _, namespace, name = identity(document)
    return kube.delete(full_kind(document), name, namespace or None)
