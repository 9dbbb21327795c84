"""What a replica runs, wherever it does: our programs by name, and where they answer."""

import json

from inferencebox.errors import SetupProblem
from inferencebox.platform import WorkloadSpec

KIND_LABEL = "inference-in-a-box/workload"
"""Which program a replica runs. A client's proxy is told of more (manifests/tenants/tenant/sidecar.yaml)."""
MODEL_PORT = 8080
CONTROL_PORT = 9999
SPANS = "http://jaeger.monitoring.svc.cluster.local:4318/v1/traces"


def ready_path(spec: WorkloadSpec) -> str:
    """Where the program says whether it is ready."""
    if spec.program == "management":
        return "/ready"
    return "/v2/health/ready" if "model" in spec.program else "/health"


def command(spec: WorkloadSpec, models: str) -> list[str]:
    """Program and arguments; none for a client, in which commands are run when asked.

    Args:
        models: folder of the trained models, as the replica sees it.
    """
    ports = ["--host", "0.0.0.0", "--port", str(MODEL_PORT), "--control-port", str(CONTROL_PORT)]
    programs: dict[str, list[str]] = {
        "client": [],
        "stub-model": ["stub-model-server", *ports],
        "model": ["model-server-testing", "serve", "--model-dir", models, *ports, *_arguments(spec)],
        "default-backend": ["default-backend", "--host", "0.0.0.0", "--port", str(MODEL_PORT)],
        "jwt-server": ["jwt-server", "serve", "--host", "0.0.0.0", "--port", str(MODEL_PORT)],
        "management": ["management", "serve", "--host", "0.0.0.0", "--port", str(MODEL_PORT)],
    }
    if spec.program not in programs:
        raise SetupProblem(f"no program {spec.program!r}", f"known: {', '.join(programs)}")
    return programs[spec.program]


def cpu_seconds(stat: str) -> float:
    """Processor time of a process, in seconds, by its `/proc/<pid>/stat` (see proc(5): a hundred ticks a second)."""
    fields = stat.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def spans(namespace: str, model: str) -> dict[str, str]:
    """Environment that tells a model where its spans go, and whose they are."""
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": SPANS,
        "OTEL_SERVICE_NAME": f"{model}.{namespace}",
        "OTEL_RESOURCE_ATTRIBUTES": f"tenant={namespace}",
    }


def environment(spec: WorkloadSpec) -> dict[str, str]:
    """Of its process."""
    own = {name: value for name, value in spec.env.items() if name != "ARGUMENTS"}
    return {"POD_NAME": spec.name, "MODEL_VERSION": spec.version, **own}


def _arguments(spec: WorkloadSpec) -> list[str]:
    return list(json.loads(spec.env.get("ARGUMENTS", "[]")))
