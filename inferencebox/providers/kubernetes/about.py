"""What a cluster itself knows of the platform on it, so that any machine can take hold of it or remove it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inferencebox.layers.install import NAMESPACE
from inferencebox.layers.labels import INSTANCE, owner_of
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers.kubernetes import state

NAME = "platform"
LAYERS, RECORD = "layers", "record"


@dataclass(frozen=True)
class About:
    """A platform on a cluster.

    Args:
        instance: its name.
        layers: what it consists of, or will.
        record: how to take hold of it; none as long as it is not complete.
    """

    instance: str
    layers: Sequence[str] = ()
    record: state.Record | None = None


def read(kube: Kube) -> About | None:
    """What is known; none if there is no platform of ours."""
    ours, found = kube.get("namespace", NAMESPACE), kube.get("configmap", NAME, NAMESPACE)
    if not ours.ok:
        return None
    data = (found.object.get("data") or {}) if found.ok else {}
    record = state.Record(**json.loads(data[RECORD])) if RECORD in data else None
    return About(owner_of(ours.object), [name for name in data.get(LAYERS, "").split(",") if name], record)


def write(kube: Kube, about: About) -> None:
    """Write it down, without what only this machine has."""
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": {INSTANCE: about.instance}}
    data = {LAYERS: ",".join(about.layers)}
    if about.record:
        data[RECORD] = json.dumps({**asdict(about.record), "endpoints": {}, "kubectl": ""})
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})[0].require()
