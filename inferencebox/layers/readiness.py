"""When an object is ready, by kind, and waiting for it by watching."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import Selected
from inferencebox.manifests import Document, full_kind
from inferencebox.probes.kubernetes import Kube

WATCH_SECONDS = 15
"""A watch is begun again after so long: in between nothing is missed, each begins with all that is there."""
EVENTS = 5
GONE_SECONDS = 30.0
"""An API server that is silent for so long has not just been restarted."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """Objects to wait for.

    Args:
        names: all of these; none: at least one, and all there are with these labels.
    """

    kind: str
    namespace: str | None
    names: frozenset[str] = frozenset()
    labels: str = ""

    def __str__(self) -> str:
        first, *others = sorted(self.names) or [self.labels]
        more = f" and {len(others)} more" if others else ""
        return f"{self.kind.lower().partition('.')[0]} {first}{more}"


@dataclass
class Pulse:
    """Whether the cluster is still there while something is waited for."""

    kube: Kube
    silent_since: float | None = None

    def check(self) -> None:
        """Ask the API server for a sign of life.

        Raises:
            SetupProblem: it has been silent for too long.
        """
        reply = self.kube.get("namespace", "default")
        if reply.error is None:
            self.silent_since = None
            return
        self.silent_since = self.silent_since or time.monotonic()
        if time.monotonic() - self.silent_since > GONE_SECONDS:
            raise SetupProblem(
                f"the cluster has not answered for {GONE_SECONDS:.0f} s ({reply})",
                "see whether it is still there, then run this again: it goes on where it was",
            )


def why_not_ready(found: Object) -> str | None:
    """Nothing if the object is ready, else what is missing."""
    rule = _RULES.get(found.get("kind", ""))
    return rule(found) if rule else None


def targets(documents: Iterable[Document], awaited: Sequence[Selected] = ()) -> list[Target]:
    """What has to be waited for before these documents are ready."""
    groups: dict[tuple[str, str | None], set[str]] = {}
    for document in documents:
        if document["kind"] in _RULES:
            metadata = document["metadata"]
            groups.setdefault((full_kind(document), metadata.get("namespace")), set()).add(metadata["name"])
    own = [Target(kind, namespace, frozenset(names)) for (kind, namespace), names in groups.items()]
    named = [
        Target(each.kind, each.namespace, frozenset({each.name} if each.name else ()), each.labels) for each in awaited
    ]
    return own + named


def wait_until_ready(kube: Kube, target: Target, deadline: float, tell: Callable[[str], None]) -> None:
    """Watch until all are ready.

    Args:
        deadline: of `time.monotonic`.
        tell: is told what is being waited for.

    Raises:
        SetupProblem: they were not ready in time; it names one, what is missing and its last events.
    """
    missing = _missing(target, {})
    pulse = Pulse(kube)
    tell(str(target))
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _never_ready(kube, target, missing)
        seen: dict[str, Object] = {}
        for what, found in kube.watch(target.kind, target.namespace, max(1, int(min(WATCH_SECONDS, left)))):
            if not _is_meant(target, found):
                continue
            name = found["metadata"]["name"]
            seen.pop(name, None)
            if what != "DELETED":
                seen[name] = found
            missing = _missing(target, seen)
            if not missing:
                return
        if not seen:
            pulse.check()
            time.sleep(0.2)  # the kind, or the way to the API server, is not there yet


def _missing(target: Target, seen: dict[str, Object]) -> dict[str, str]:
    absent = dict.fromkeys(target.names - seen.keys(), "it is not there")
    if not target.names and not seen:
        absent = {target.labels: "there is none"}
    unready = {name: why for name, found in seen.items() if (why := why_not_ready(found))}
    return absent | unready


def _is_meant(target: Target, found: Object) -> bool:
    if target.names:
        return found["metadata"]["name"] in target.names
    labels = found["metadata"].get("labels") or {}
    wanted = [pair.partition("=") for pair in filter(None, target.labels.split(","))]
    return all(labels.get(name) == value for name, _, value in wanted)


def _never_ready(kube: Kube, target: Target, missing: dict[str, str]) -> SetupProblem:
    name, why = next(iter(sorted(missing.items())), (str(target), "nothing was told of it"))
    where = f" in {target.namespace}" if target.namespace else ""
    kind = target.kind.partition(".")[0].lower()
    said = last_events(kube, name, target.namespace)
    events = f"; last events: {' | '.join(said)}" if said else "; there are no events of it"
    look = f"kubectl describe {kind} {name}" + (f" -n {target.namespace}" if target.namespace else "")
    return SetupProblem(f"{kind} {name}{where} was not ready in time: {why}{events}", look)


def last_events(kube: Kube, name: str, namespace: str | None) -> list[str]:
    """What was said last about an object and those that it made (their names begin with its name)."""
    reply = kube.list("events", namespace)
    mine = [
        each
        for each in reply.items
        if each.get("involvedObject", {}).get("name", "") == name
        or each.get("involvedObject", {}).get("name", "").startswith(f"{name}-")
    ]
    mine.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
    warnings = [each for each in mine if each.get("type") == "Warning"] or mine
    said = (
        f"{each['involvedObject']['kind'].lower()} {each['involvedObject']['name']}: {each.get('reason', '')}: "
        f"{' '.join(str(each.get('message', '')).split())[:200]}"
        for each in warnings
    )
    return list(dict.fromkeys(said))[-EVENTS:]


UNSEEN = "its controller has not seen it yet"


def _is_unseen(found: Object) -> bool:
    seen = (found.get("status") or {}).get("observedGeneration", 0)
    return bool(seen < found["metadata"].get("generation", 0))


def _deployment(found: Object) -> str | None:
    status, wanted = found.get("status") or {}, found["spec"].get("replicas", 1)
    if _is_unseen(found):
        return UNSEEN
    ready = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    if ready < wanted or status.get("replicas", 0) > wanted:
        return f"{ready} of {wanted} replicas are available and up to date"
    return None


def _daemon_set(found: Object) -> str | None:
    status = found.get("status") or {}
    if _is_unseen(found):
        return UNSEEN
    wanted = status.get("desiredNumberScheduled", 1)
    ready = min(status.get("numberAvailable", 0), status.get("updatedNumberScheduled", 0))
    return None if wanted and ready >= wanted else f"{ready} of {wanted} pods are available"


def _stateful_set(found: Object) -> str | None:
    wanted, ready = found["spec"].get("replicas", 1), (found.get("status") or {}).get("readyReplicas", 0)
    return None if ready >= wanted else f"{ready} of {wanted} replicas are ready"


def _condition(name: str) -> Callable[[Object], str | None]:
    def rule(found: Object) -> str | None:
        status = found.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == name:
                if condition["status"] == "True":
                    return None
                words = condition.get("message") or condition.get("reason") or ""
                return f"{name} is {condition['status']} ({' '.join(words.split())[:200]})"
        return f"{name} is not said yet"

    return rule


_RULES: dict[str, Callable[[Object], str | None]] = {
    "Deployment": _deployment,
    "DaemonSet": _daemon_set,
    "StatefulSet": _stateful_set,
    "Job": _condition("Complete"),
    "Pod": _condition("Ready"),
    "CustomResourceDefinition": _condition("Established"),
    "APIService": _condition("Available"),
    "Certificate": _condition("Ready"),
    "ClusterIssuer": _condition("Ready"),
    "Gateway": _condition("Programmed"),
    "InferenceService": _condition("Ready"),
}
