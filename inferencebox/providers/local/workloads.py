"""Replicas on the box: a network of their own, a process of ours, and a sidecar where they are in the mesh."""

import ipaddress
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from inferencebox.platform import Workload, WorkloadSpec
from inferencebox.providers import replicas

from .addresses import PODS, WORKLOAD_NETWORK
from .mesh import pod_name
from .network import Pod
from .supervisor import Program

# KServe puts it on the pods of a model; here it says too that the pod's /metrics are KServe's own
SERVED_LABEL = "serving.kserve.io/inferenceservice"
IN_MESH_LABEL = {"security.istio.io/tlsMode": "istio"}


def place(specs: Sequence[WorkloadSpec], taken: Iterable[str]) -> list[Workload]:
    """Give each new replica an address that no other has: its fixed one, or the next free one."""
    used = set(taken)
    free = (str(host) for host in ipaddress.ip_network(WORKLOAD_NETWORK).hosts() if str(host) not in used)
    return [_placed(spec, PODS.get(f"{spec.namespace}.{spec.name}") or next(free)) for spec in specs]


def _placed(spec: WorkloadSpec, address: str) -> Workload:
    labels = {"app": spec.app, "version": spec.version, replicas.KIND_LABEL: spec.program, **spec.labels}
    labels |= IN_MESH_LABEL if spec.mesh else {}
    labels |= {SERVED_LABEL: spec.app} if spec.program == "model" else {}
    return Workload(
        namespace=spec.namespace,
        name=spec.name,
        app=spec.app,
        version=spec.version,
        address=address,
        labels=labels,
        locality=spec.locality,
        mesh=spec.mesh,
        service_account=spec.service_account or spec.app,
    )


def pods_of(workloads: Sequence[Workload]) -> list[Pod]:
    """The networks that replicas need."""
    return [Pod(pod_name(workload), workload.address, captured=workload.mesh) for workload in workloads]


def program(
    spec: WorkloadSpec, workload: Workload, models: Path, telemetry: Mapping[str, str] | None = None
) -> Program | None:
    """The process of ours that the replica runs; clients have none, they are run when asked.

    Args:
        telemetry: environment that tells a model where its spans go.
    """
    name, *arguments = replicas.command(spec, str(models)) or [""]
    if not name:
        return None
    executable = str(Path(sys.executable).parent / name)
    environment = {**(telemetry or {}), **replicas.environment(spec)}
    return Program(pod_name(workload), [executable, *arguments], pod=pod_name(workload), env=environment)
