"""Removes from a cluster what a platform of ours made there: by its label, and by what its layers leave."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import Layer, Selected
from inferencebox.layers.install import NAMESPACE
from inferencebox.layers.labels import BORROWED, INSTANCE, owner_of
from inferencebox.layers.readiness import Pulse
from inferencebox.probes.kubernetes import FIELD_MANAGER, Kube, Resource, has_fields_of

DEFINITIONS = "customresourcedefinitions"
HOOKS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
AT_ONCE = 8
PATIENCE = 90.0
"""Seconds that controllers have to clear up behind their objects, before we take their marks off."""
END = 600.0
DERIVED = {"events", "endpoints", "endpointslices", "pods", "replicasets", "controllerrevisions"}
"""Kinds that go with others."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Thing:
    """One object to be removed."""

    kind: Resource
    name: str
    namespace: str | None

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind.kind} {self.name}{where}"


@dataclass
class Removal:
    """One platform's end on one cluster.

    First what would have a say in removals (webhooks); then what controllers must clear up behind, while they run; then
    namespaces that are ours with all in them, and our objects in others'; definitions last. It can be begun again at
    any point: each time it is looked at what is still there.

    Args:
        kube: the cluster.
        instance: name of the platform.
        layers: what platforms consist of: what each leaves elsewhere is known from them.
        tell: is told what is done.
    """

    kube: Kube
    instance: str
    layers: Iterable[Layer]
    tell: Tell
    kept: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """Remove everything; the answer says what was left for others' sake.

        Raises:
            SetupProblem: something does not go away.
        """
        self._remove("webhooks", self._labelled(lambda kind: kind.plural in HOOKS))
        self._remove("objects of the platform's own kinds", self._custom())
        leftovers = self._leftovers() if self._began else []
        self._remove("objects in namespaces of others", self._in_others_namespaces())
        self._remove("namespaces", [each for each in self._namespaces if each.name != NAMESPACE])
        self._remove("definitions", self._definitions(leftovers))
        self._remove("what is left of roles and classes", self._labelled(self._is_cluster_wide))
        self._remove("what controllers left elsewhere", leftovers)
        self._give_back()
        self._remove("its own records", [each for each in self._namespaces if each.name == NAMESPACE])
        return self.kept

    @cached_property
    def _kinds(self) -> list[Resource]:
        return [kind for kind in self.kube.kinds() if {"list", "delete"} <= {*kind.verbs}]

    @cached_property
    def _namespaces(self) -> list[Thing]:
        (kind,) = [kind for kind in self._kinds if kind.full_name == "namespaces"]
        return [_thing(kind, each) for each in self._list(kind, self._ours)]

    @cached_property
    def _definitions_there(self) -> list[dict[str, Any]]:
        return self.kube.list(DEFINITIONS).items

    @cached_property
    def _began(self) -> str:
        """When the platform began to be there: what is older is somebody else's."""
        reply = self.kube.get("namespace", NAMESPACE)
        return str(reply.object["metadata"]["creationTimestamp"]) if reply.ok else ""

    @property
    def _ours(self) -> str:
        return f"{INSTANCE}={self.instance}"

    def _custom(self) -> list[Thing]:
        """Objects of kinds that are defined here: ours, and whatever is in our namespaces."""
        groups = {each["spec"]["group"] for each in self._definitions_there}
        spaces = {each.name for each in self._namespaces}

        def meant(found: Mapping[str, Any]) -> bool:
            ours = owner_of(found) == self.instance or _is_made_by_us(found)
            return ours or found["metadata"].get("namespace") in spaces

        kinds = [kind for kind in self._kinds if kind.group in groups]
        return [_thing(kind, each) for kind, found in self._everything(kinds) for each in found if meant(each)]

    def _in_others_namespaces(self) -> list[Thing]:
        spaces = {each.name for each in self._namespaces}
        found = self._labelled(lambda kind: kind.namespaced and kind.plural not in DERIVED - {"pods"})
        return [each for each in found if each.namespace not in spaces]

    def _labelled(self, wanted: Callable[[Resource], bool]) -> list[Thing]:
        found = self._everything([kind for kind in self._kinds if wanted(kind)], self._ours)
        return [_thing(kind, each) for kind, all_ in found for each in all_]

    @staticmethod
    def _is_cluster_wide(kind: Resource) -> bool:
        return not kind.namespaced and kind.plural not in ("namespaces", DEFINITIONS)

    def _definitions(self, leftovers: Sequence[Thing]) -> list[Thing]:
        """Ours; but not where somebody has objects of that kind elsewhere: those would go with it."""
        (kind,) = [kind for kind in self._kinds if kind.plural == DEFINITIONS]
        mine = {each["metadata"]["name"]: each for each in self._definitions_there if owner_of(each) == self.instance}
        kinds = [each for each in self._kinds if f"{each.plural}.{each.group}" in mine]
        for of, found in self._everything(kinds):
            if others := [thing for each in found if (thing := _thing(of, each)) not in leftovers]:
                self.kept.append(f"the definition {of.full_name}: {others[0]} is somebody's")
                mine.pop(of.full_name)
        return [_thing(kind, each) for each in mine.values()]

    def _leftovers(self) -> list[Thing]:
        """What the programs of our layers made in places that are not theirs, since the platform is there."""
        wanted = [(kind, left) for layer in self.layers for left in layer.leaves for kind in self._kinds_of(left)]
        return [
            _thing(kind, each)
            for kind, left in wanted
            for each in self._list(kind, left.labels)
            if _is_selected(each, left) and each["metadata"]["creationTimestamp"] >= self._began
        ]

    def _kinds_of(self, left: Selected) -> list[Resource]:
        return [kind for kind in self._kinds if kind.answers_to(left.kind)]

    def _give_back(self) -> None:
        """Namespaces of others lose the labels that we applied: whoever applies less than before gives up the rest."""
        for each in self.kube.list("namespaces", labels=f"{BORROWED}={self.instance}").items:
            bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each["metadata"]["name"]}}
            self.kube.apply(bare)[0].require()

    def _everything(self, kinds: Sequence[Resource], labels: str = "") -> list[tuple[Resource, list[dict[str, Any]]]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(zip(kinds, pool.map(lambda kind: self._list(kind, labels), kinds), strict=True))

    def _list(self, kind: Resource, labels: str = "") -> list[dict[str, Any]]:
        reply = self.kube.list(kind.full_name, labels=labels)
        if reply.status == 404:
            return []  # its definition is gone meanwhile
        if not reply.ok:
            raise SetupProblem(
                f"{kind.full_name} cannot be listed: {reply}", "ask for the right to, then run this again"
            )
        return reply.items

    def _remove(self, what: str, things: Sequence[Thing]) -> None:
        """Delete, and wait until all are gone. Marks that nobody takes off any more are taken off at last."""
        if not things:
            return
        self.tell(f"{len(things)} {what}")
        began, pulse, left, released = time.monotonic(), Pulse(self.kube), list(things), False
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while left := [thing for thing, gone in zip(left, pool.map(self._push, left), strict=True) if not gone]:
                pulse.check()
                waited = time.monotonic() - began
                if waited > PATIENCE and not released:
                    released = True
                    self._release(left)
                if waited > END:
                    raise self._stuck(left[0])
                time.sleep(0.5)  # each round also tells what is left to go, and gives up at END

    def _push(self, thing: Thing) -> bool:
        """Whether it is gone. It is told to go as often as it takes: a controller may have made it anew, and who has a
        say in it may not answer just now."""
        there = self.kube.get(thing.kind.full_name, thing.name, thing.namespace)
        if there.status == 404:
            return True
        if there.ok and "deletionTimestamp" in there.object["metadata"]:
            return False
        reply = self.kube.delete(thing.kind.full_name, thing.name, thing.namespace)
        if reply.cause == "rbac":
            raise SetupProblem(f"{thing} cannot be deleted: {reply}", "ask for the right to, and run this again")
        return reply.status in (404, 405)

    def _release(self, left: Sequence[Thing]) -> None:
        """Take the marks off by which controllers, which are gone by now, keep objects."""
        for each in left:
            self.kube.patch(each.kind.full_name, each.name, each.namespace, {"metadata": {"finalizers": None}})

    def _stuck(self, thing: Thing) -> SetupProblem:
        reply = self.kube.delete(thing.kind.full_name, thing.name, thing.namespace)
        why = f": {reply}" if not reply.ok else ""
        return SetupProblem(
            f"{thing} does not go away{why}", f"kubectl get {thing.kind.full_name} {thing.name} -o yaml"
        )


def _is_made_by_us(found: Mapping[str, Any]) -> bool:
    """Whether we created it, or our scenarios: they write with a name of their own."""
    return has_fields_of(FIELD_MANAGER, found)


def _is_selected(found: Mapping[str, Any], left: Selected) -> bool:
    metadata = found["metadata"]
    return left.name in ("", metadata["name"]) and left.namespace in (None, metadata.get("namespace"))


def _thing(kind: Resource, found: Mapping[str, Any]) -> Thing:
    return Thing(kind, found["metadata"]["name"], found["metadata"].get("namespace"))
