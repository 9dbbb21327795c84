"""The ways of breaking a platform. Each is data of the catalogue that can be applied; applied, it can be ended."""

import fnmatch
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferencebox.manifests import full_kind
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube

from .certificates import replace_certificate
from .documents import Document, append_at, remove_at, set_at
from .effects import NoEffect
from .means import Means, means_of
from .remembered import Memory, identity
from .rules import RULES
from .tampering import Tampering, listed


@dataclass(frozen=True)
class Scene:
    """What mechanisms work on. What has to be ended or put back is entered in `ends` and `memory`."""

    platform: Platform
    kube: Kube
    memory: Memory
    ends: ExitStack

    @property
    def means(self) -> Means:
        return means_of(self.platform)


class _Mechanism(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Target(_Mechanism):
    """Which objects: all of a kind, or those in some namespaces, of some names (`own-*`), or with these labels."""

    kind: str
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}

    def concerns(self, document: Document) -> bool:
        _, namespace, name = identity(document)
        has = document["metadata"].get("labels") or {}
        return (
            (not self.namespaces or namespace in self.namespaces)
            and (not self.names or any(fnmatch.fnmatch(name, pattern) for pattern in self.names))
            and all(has.get(key) == value for key, value in self.labels.items())
        )


class Change(Target):
    """Change objects, those too that come while it lasts: set, append and remove by path, or a rule of `rules.py`."""

    do: Literal["change"]
    set: Mapping[str, Any] = {}
    append: Mapping[str, Any] = {}
    remove: tuple[str, ...] = ()
    rule: str = ""
    arguments: Mapping[str, Any] = {}

    def breaking(self, document: Document) -> None:
        for path in self.remove:
            remove_at(document, path)
        for path, value in self.set.items():
            set_at(document, path, value)
        for path, value in self.append.items():
            append_at(document, path, value)
        if self.rule:
            RULES[self.rule](document, **self.arguments)

    def apply(self, scene: Scene) -> None:
        tampering = Tampering(scene.kube, self.kind, self.concerns, self.breaking, scene.memory)
        scene.ends.callback(tampering.end)
        tampering.begin()


class Delete(Target):
    """Delete what is there."""

    do: Literal["delete"]

    def apply(self, scene: Scene) -> None:
        found = [document for document in listed(scene.kube, self.kind) if self.concerns(document)]
        if not found:
            raise NoEffect(f"there is no {self.kind} to delete")
        for document in found:
            scene.memory.note("deleted", document)
            _, namespace, name = identity(document)
            scene.kube.delete(full_kind(document), name, namespace or None).require()


class Create(_Mechanism):
    """Add objects that should not be there."""

    do: Literal["create"]
    objects: tuple[Document, ...]

    def apply(self, scene: Scene) -> None:
        for document in self.objects:
            scene.memory.note("created", document)
            scene.kube.apply(document)[0].require()


class Stop(_Mechanism):
    """Stop a component."""

    do: Literal["stop"]
    component: str

    def apply(self, scene: Scene) -> None:
        scene.ends.callback(scene.platform.start, self.component)
        scene.platform.stop(self.component)


class Freeze(_Mechanism):
    """Leave a component's process alive but let it do nothing."""

    do: Literal["freeze"]
    component: str

    def apply(self, scene: Scene) -> None:
        scene.ends.callback(scene.means.freeze(self.component))


class Forget(_Mechanism):
    """A component loses what it keeps in a folder of the platform's state, each time it starts."""

    do: Literal["forget"]
    component: str
    folder: str

    def apply(self, scene: Scene) -> None:
        scene.ends.callback(scene.means.forgetful(self.component, self.folder))


class Environment(_Mechanism):
    """Run components with other settings. Names of components may end in `*`."""

    do: Literal["environment"]
    components: str
    set: Mapping[str, str]

    def apply(self, scene: Scene) -> None:
        scene.ends.callback(scene.means.with_settings(self.components, self.set, scene.memory))


class Rewrite(_Mechanism):
    """Change the text of a component's file in the platform's state; the component reads it again (`reload`), or is
    started anew if it reads its files only then (`restart`)."""

    do: Literal["rewrite"]
    file: str
    replace: Mapping[str, str]
    reload: str = ""
    restart: str = ""

    def apply(self, scene: Scene) -> None:
        component, anew = self.restart or self.reload, bool(self.restart)
        scene.ends.callback(scene.means.rewritten(self.file, self.replace, component, anew))


class ForeignCertificate(_Mechanism):
    """Have a TLS Secret hold a certificate that somebody else signed, for these hosts."""

    do: Literal["foreign-certificate"]
    namespace: str
    name: str
    hosts: tuple[str, ...]

    def apply(self, scene: Scene) -> None:
        replace_certificate(scene.kube, scene.memory, self.namespace, self.name, self.hosts)


Mechanism = Annotated[
    Change | Delete | Create | Stop | Freeze | Forget | Environment | Rewrite | ForeignCertificate,
    Field(discriminator="do"),
]
