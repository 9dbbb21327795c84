"""What a process makes on a platform that may outlive it: noted, so that the next run removes what a killed one left.

A process that ends in good order takes down what it made and drops its inventory; one that is killed can't. Whether it
still runs the kernel says, by the lock on the file.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from inferencebox.errors import SetupProblem
from inferencebox.manifests import Document, full_kind
from inferencebox.platform import Observer, Platform, WorkloadSpec
from inferencebox.probes.kubernetes import FIELD_MANAGER, Kube, has_fields_of

FOLDER = "inventories"


@dataclass(frozen=True)
class MadeObject:
    """One object of Kubernetes, or fields of it.

    Args:
        manager: whose fields of the object were set; empty: the whole object was made.
        uid: of the object made; one that somebody else made in its place meanwhile is left alone.
    """

    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str = ""
    manager: str = ""

    @property
    def resource(self) -> str:
        """As `Kube` takes it: kinds of one name are told apart by their group."""
        return full_kind({"kind": self.kind, "apiVersion": self.api_version})

    def __str__(self) -> str:
        part = f"{self.manager}'s part of " if self.manager else ""
        return f"{part}{self.kind} {f'{self.namespace}/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True)
class MadeWorkload:
    """One replica, which is no object of Kubernetes everywhere."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"Workload {self.namespace}/{self.name}"


Made = MadeObject | MadeWorkload
KINDS: Mapping[str, type[Made]] = {kind.__name__: kind for kind in (MadeObject, MadeWorkload)}
"""By the name that a line of an inventory begins with."""


class Inventory(Observer):
    """This process's, in a platform's state folder. The file comes with the first thing that is made."""

    def __init__(self, home: Path) -> None:
        self._path = home / FOLDER / f"{os.getpid()}.jsonl"
        self._file: int | None = None

    def note_object(self, found: Document, manager: str, is_new: bool) -> None:
        """An object was made, or fields of one were set. Ordinary changes to what others made are none of ours."""
        if not is_new and manager == FIELD_MANAGER:
            return
        metadata = found["metadata"]
        where = (found["kind"], found["apiVersion"], metadata.get("namespace", ""), metadata["name"])
        self._write(MadeObject(*where, uid=metadata["uid"]) if is_new else MadeObject(*where, manager=manager))

    def adds(self, specs: Sequence[WorkloadSpec]) -> None:
        """Noted before they are started: that takes a while."""
        for spec in specs:
            self._write(MadeWorkload(spec.namespace, spec.name))

    def drop(self) -> None:
        """All of it has been taken down."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _write(self, made: Made) -> None:
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            os.write(self._file, (json.dumps({type(made).__name__: asdict(made)}) + "\n").encode())
        except OSError as problem:
            raise SetupProblem(f"{self._path} can't be written ({problem.strerror})", "make room") from problem


def clear_away(home: Path, platform: Platform, connect: Callable[[], Kube]) -> list[str]:
    """Remove what processes that are gone left on a platform; what was there is the answer.

    Args:
        home: the platform's state folder.
        connect: gives its Kubernetes API, if something was left.
    """
    with contextlib.ExitStack() as held:
        left = {path: file for path in sorted((home / FOLDER).glob("*.jsonl")) if (file := _taken_over(path, held))}
        if not left:
            return []
        things = [made for file in left.values() for made in _read(file.read())]
        objects = [made for made in things if isinstance(made, MadeObject)]
        workloads = {made for made in things if isinstance(made, MadeWorkload)}
        kube = connect()
        removed: list[Made] = [made for made in reversed(objects) if _remove(made, kube)]
        removed += _remove_workloads(workloads, platform)
        for path in left:
            path.unlink(missing_ok=True)
    return [str(made) for made in removed]


def _taken_over(path: Path, held: contextlib.ExitStack) -> TextIO | None:
    """An inventory, held against others; none if its process runs."""
    file = held.enter_context(path.open())
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return file


def _read(text: str) -> Iterator[Made]:
    for line in text.splitlines():
        try:
            ((name, fields),) = json.loads(line).items()
            yield KINDS[name](**fields)
        except (ValueError, TypeError, KeyError):
            return  # killed while it wrote


def _remove(made: MadeObject, kube: Kube) -> bool:
    found = kube.get(made.resource, made.name, made.namespace or None)
    if not found.ok:
        return False
    if made.manager:
        return _let_go(made, found.object, kube)
    if found.object["metadata"]["uid"] != made.uid:
        return False
    return kube.delete(made.resource, made.name, made.namespace or None).ok


def _let_go(made: MadeObject, found: Any, kube: Kube) -> bool:
    """Who applies an object without its fields gives them up."""
    if not has_fields_of(made.manager, found):
        return False
    place = {"namespace": made.namespace} if made.namespace else {}
    bare = {"apiVersion": made.api_version, "kind": made.kind, "metadata": {"name": made.name, **place}}
    return all(reply.ok for reply in kube.apply([bare], manager=made.manager))


def _remove_workloads(wanted: Collection[MadeWorkload], platform: Platform) -> list[MadeWorkload]:
    there = {MadeWorkload(each.namespace, each.name): each for each in platform.workloads()} if wanted else {}
    found = [made for made in there if made in wanted]
    if found:
        platform.remove_workloads([there[made] for made in found])
    return found
