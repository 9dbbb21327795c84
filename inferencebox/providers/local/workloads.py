"""Replicas on the box: a network of their own, a process of ours, and a sidecar where they are in the mesh."""

import ipaddress
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.platform import Workload, WorkloadSpec

from .addresses import WORKLOAD_NETWORK
from .mesh import pod_name
from .network import Pod
from .supervisor import Program

MODEL_PORT = 8080
CONTROL_PORT = 9999
IN_MESH_LABEL = {"security.istio.io/tlsMode": "istio"}


def place(specs: Sequence[WorkloadSpec], taken: Iterable[str]) -> list[Workload]:
    """Give each new replica an address that no other has."""
    used = set(taken)
    free = (str(host) for host in ipaddress.ip_network(WORKLOAD_NETWORK).hosts() if str(host) not in used)
    return [_placed(spec, next(free)) for spec in specs]


def _placed(spec: WorkloadSpec, address: str) -> Workload:
    labels = {"app": spec.app, "version": spec.version, **spec.labels, **(IN_MESH_LABEL if spec.mesh else {})}
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


def ready_path(spec: WorkloadSpec) -> str:
    """Where the program says whether it is ready."""
    return "/v2/health/ready" if "model" in spec.program else "/health"


def program(spec: WorkloadSpec, workload: Workload, models: Path) -> Program | None:
    """The process of ours that the replica runs; clients have none, they are run when asked."""
    if spec.program == "client":
        return None
    scripts = Path(sys.executable).parent
    ports = ["--host", "0.0.0.0", "--port", str(MODEL_PORT), "--control-port", str(CONTROL_PORT)]
    commands: dict[str, list[str]] = {
        "stub-model": [str(scripts / "stub-model-server"), *ports],
        "model": [str(scripts / "model-server-testing"), "serve", "--model-dir", str(models), *ports],
        "default-backend": [str(scripts / "default-backend"), "--host", "0.0.0.0", "--port", str(MODEL_PORT)],
        "jwt-server": [str(scripts / "jwt-server"), "serve", "--host", "0.0.0.0", "--port", str(MODEL_PORT)],
    }
    if spec.program not in commands:
        raise SetupProblem(f"no program {spec.program!r}", f"known: {', '.join(commands)}, client")
    env = {"POD_NAME": workload.name, "MODEL_VERSION": workload.version, **spec.env}
    arguments = json.loads(env.pop("ARGUMENTS", "[]")) if spec.program == "model" else []
    return Program(pod_name(workload), [*commands[spec.program], *arguments], pod=pod_name(workload), env=env)
