"""Somebody else's cluster: what others made there is left as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.layers.labels import BORROWED, INSTANCE, LAYER, owner_of
from inferencebox.manifests import Document, full_kind
from inferencebox.probes.kubernetes import Kube

USED_AS_THEY_ARE = {"CustomResourceDefinition"}
"""Kinds of which one that others made does as well as ours."""


@dataclass(frozen=True)
class Others:
    """Decides what may be applied where others have objects too.

    Args:
        kube: the cluster.
        instance: name of the platform whose objects are ours.
    """

    kube: Kube
    instance: str

    def spare(self, document: Document) -> Document | None:
        """What to apply of a document: all of it, only our labels of a namespace that was there, or nothing.

        Raises:
            SetupProblem: an object of that name is there, is somebody else's, and the platform needs its own.
        """
        metadata = document["metadata"]
        reply = self.kube.get(full_kind(document), metadata["name"], metadata.get("namespace"))
        if not reply.ok:
            return document  # it is not there, or the answer to applying it says what is wrong
        owner = owner_of(reply.object)
        if owner == self.instance:
            return document
        where = f" in {metadata['namespace']}" if "namespace" in metadata else ""
        if owner:
            raise SetupProblem(
                f"{document['kind']} {metadata['name']}{where} belongs to another platform of ours, {owner}",
                f"use that one (--instance {owner}), or remove it first (ibox down --instance {owner})",
            )
        if document["kind"] in USED_AS_THEY_ARE:
            return None
        if document["kind"] == "Namespace":
            return self._borrowed(document, reply.object)
        raise SetupProblem(
            f"{document['kind']} {metadata['name']}{where} is there already, made by somebody else; "
            "the platform needs one of its own of that name",
            "remove or rename it, or use another cluster",
        )

    def _borrowed(self, document: Document, found: Mapping[str, Any]) -> Document | None:
        """Labels of ours on a namespace of others: they go again with the platform, the namespace stays."""
        there = found["metadata"].get("labels") or {}
        wanted = {
            name: value
            for name, value in (document["metadata"].get("labels") or {}).items()
            if name not in (LAYER, INSTANCE)
        }
        for name, value in wanted.items():
            if there.get(name, value) != value:
                raise SetupProblem(
                    f"the namespace {document['metadata']['name']} is there with {name}={there[name]}, not {value}",
                    "change that label, or use another cluster",
                )
        if not wanted:
            return None
        labels = {**wanted, BORROWED: self.instance}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {**_named(document), "labels": labels}}


def _named(document: Document) -> dict[str, Any]:
    return {"name": document["metadata"]["name"]}
