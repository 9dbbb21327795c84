"""The running local platform, as scenarios see it."""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

from filelock import FileLock

from inferencebox.errors import SetupProblem
from inferencebox.paths import state_dir
from inferencebox.platform import ComponentStatus, Endpoint, Platform, RunningProgram, Workload, WorkloadSpec
from inferencebox.probes.prometheus import Prometheus
from inferencebox.providers import pins, replicas

from . import logs, names, objects, processes, telemetry, workloads
from .addresses import PODS
from .box import Box, find
from .mesh import AGENT_STATUS_PORT, pod_name, workload_entry
from .parts import Parts
from .state import Record, RecordFile
from .supervisor import Program

# how each component says that it is ready: pod, port, path
HEALTH: Mapping[str, tuple[str, int, str]] = {
    "jwt-server": ("jwt-server", 8080, "/health"),
    "istiod": ("istiod", 8080, "/ready"),
    "ratelimit": ("ratelimit", 8080, "/healthcheck"),
    "envoy-gateway": ("envoy-gateway", 8081, "/readyz"),
    "istio-ingressgateway": ("istio-system.istio-ingressgateway", AGENT_STATUS_PORT, "/healthz/ready"),
}
WATCHERS = {**telemetry.HEALTH, **logs.HEALTH}
PROGRAM_OF = {
    "istio-ingressgateway": "istio-system.istio-ingressgateway.proxy",
    "management": "default.management",
}


class LocalPlatform(Platform):
    """A platform of processes in a box on this machine."""

    provider = "local"

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.state = state_dir(instance)
        box = find(self.state)
        if box is None or not (self.state / "platform.json").exists():
            raise SetupProblem(f"no local platform {instance!r} is up", "run `ibox up`")
        self.box: Box = box
        self._file = RecordFile(self.state)
        record = self.record
        self.release = record.release
        self.capabilities = record.capabilities
        self.parts = Parts(self.state, {name: Path(path) for name, path in record.binaries.items()})
        self.kubeconfig = self.state / "kubeconfig"
        self.logs = self.state / "logs"
        self.edge_ca = self.state / "edge-ca.crt"
        self.mesh_ca = self.parts.mesh.root_certificate
        self.signing_keys = self.state / "jwt-keys"

    @property
    def record(self) -> Record:
        return self._file.read()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:  # type: ignore[override]  # read-only; attribute in the base class
        return self.record.endpoints

    def endpoint(self, name: str) -> Endpoint:
        endpoints = self.endpoints
        if name not in endpoints:
            raise SetupProblem(f"the local platform has no entrance {name!r}", f"known: {', '.join(sorted(endpoints))}")
        return endpoints[name]

    def forward(self, workload: Workload, port: int) -> Endpoint:
        """As ``kubectl port-forward``: from within the replica's network, so past its sidecar."""
        return Endpoint("http", "127.0.0.1", self.parts.door.forward("127.0.0.1", port, pod_name(workload)))

    def reach(self, address: str, port: int, pod: str = "") -> Endpoint:
        """An address of the box seen from its own network, outside the mesh, or from a pod's."""
        return Endpoint("http", "127.0.0.1", self.parts.door.forward(address, port, pod))

    def run_in(
        self, workload: Workload, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        programs = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
        return self.box.run(["env", programs, *argv], pod=pod_name(workload), stdin=stdin, timeout=timeout)

    def run_beside(
        self, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        return self.box.run(argv, stdin=stdin, timeout=timeout)

    def cpu_seconds(self, workload: Workload) -> float:
        pid = next(part.pid for part in self.components() if part.name == pod_name(workload))
        return replicas.cpu_seconds(self.run_beside(["cat", f"/proc/{pid}/stat"]).stdout.decode())

    def workloads(self, namespace: str | None = None, **labels: str) -> list[Workload]:
        return [
            workload
            for workload in self.record.workloads
            if namespace in (None, workload.namespace)
            and all(workload.labels.get(name) == value for name, value in labels.items())
        ]

    def _add_workloads(self, specs: Sequence[WorkloadSpec]) -> list[Workload]:
        added: list[Workload] = []

        def enter(record: Record) -> None:
            placed = workloads.place(specs, [workload.address for workload in record.workloads])
            added.extend(placed)
            record.workloads.extend(placed)
            record.added.extend(pod_name(workload) for workload in placed)

        self._file.change(enter)
        self._retarget()
        try:
            self.parts.networks.add(workloads.pods_of(added), self.parts.binaries["iptables-restore"])
            self.run_workloads(list(zip(specs, added, strict=True)))
        except BaseException:
            self.remove_workloads(added)
            raise
        return added

    def remove_workloads(self, workloads_: Sequence[Workload]) -> None:
        self._retarget(without=workloads_)  # first: a replica that is taken away is not one that is down
        self.parts.supervisor.forget(*(name for workload in workloads_ for name in self._programs_of(workload)))
        for namespace in {workload.namespace for workload in workloads_ if workload.mesh}:
            names_ = [each.name for each in workloads_ if each.mesh and each.namespace == namespace]
            self.parts.kubectl.run(
                "delete", "workloadentry", *names_, "-n", namespace, "--ignore-not-found", "--wait=false"
            )
        self.parts.networks.remove(workloads.pods_of(workloads_))
        gone = {(workload.namespace, workload.name) for workload in workloads_}

        def leave(record: Record) -> None:
            record.workloads = [each for each in record.workloads if (each.namespace, each.name) not in gone]
            record.added = [pod for pod in record.added if tuple(pod.split(".", 1)) not in gone]

        self._file.change(leave)
        self._retarget()

    def run_workloads(self, placed: Sequence[tuple[WorkloadSpec, Workload]], start_programs: bool = True) -> None:
        """Start what runs in replicas whose networks exist, and wait until each is ready."""
        meshed = [workload for _, workload in placed if workload.mesh]
        accounts = [objects.service_account(each.namespace, each.service_account) for each in meshed]
        if meshed:
            entries = [workload_entry(workload, spec.readiness) for spec, workload in placed if workload.mesh]
            self.parts.kubectl.apply([*accounts, *entries])
        programs = self.programs(placed) if start_programs else []
        programs += self.sidecars(placed)
        self.parts.supervisor.run(programs)
        names.write(self.state, self.parts.kubectl)
        self.await_workloads(placed)

    def programs(self, placed: Sequence[tuple[WorkloadSpec, Workload]]) -> list[Program]:
        watched = self.capabilities.get("jaeger", "") is None
        made = (
            workloads.program(
                spec, workload, self.state / "models", replicas.spans(spec.namespace, spec.app) if watched else None
            )
            for spec, workload in placed
        )
        return [program for program in made if program is not None]

    def sidecars(self, placed: Sequence[tuple[WorkloadSpec, Workload]]) -> list[Program]:
        mesh = self.parts.mesh
        meshed = [(spec, workload) for spec, workload in placed if workload.mesh]
        with ThreadPoolExecutor(4) as pool:
            tokens = pool.map(self.token_for, [workload for _, workload in meshed])
            return [
                mesh.sidecar(
                    workload,
                    token,
                    certificate_life=spec.certificate_life,
                    readiness=(replicas.MODEL_PORT, replicas.ready_path(spec)) if spec.readiness else None,
                )
                for (spec, workload), token in zip(meshed, tokens, strict=True)
            ]

    def token_for(self, workload: Workload) -> str:
        """A token of the workload's identity, for istiod, by the API's TokenRequest."""
        return self.parts.kubectl.run(
            "create", "token", workload.service_account, "-n", workload.namespace,
            "--audience", "istio-ca", "--duration", "24h",
        ).strip()  # fmt: skip

    def await_watchers(self, *components: str) -> None:
        """Parts of telemetry, and what keeps logs."""
        for component in components:
            port, path = WATCHERS[component]
            self.parts.readiness.http(component, "127.0.0.1", port, path, telemetry.pod_of(component))

    def load_rules(self, name: str, content: str | None) -> None:
        file = self.parts.telemetry.rules / f"{name}.yaml"
        if content is None:
            file.unlink(missing_ok=True)
        elif file.exists() and file.read_text() == content:
            return
        else:
            file.write_text(content)
        Prometheus(self.endpoint("prometheus")).read_rules_anew(name, str(file))

    def _retarget(self, without: Sequence[Workload] = ()) -> None:
        """Prometheus scrapes the replicas that there are now, but for some."""
        if self.capabilities.get("prometheus", "") is None:
            with FileLock(self.state / "targets.lock"):
                self.parts.telemetry.write_targets(each for each in self.record.workloads if each not in without)

    def await_workloads(self, placed: Sequence[tuple[WorkloadSpec, Workload]]) -> None:
        ready = self.parts.readiness
        for spec, workload in placed:
            pod = pod_name(workload)
            if workload.mesh:
                ready.http(f"{pod}.proxy", "127.0.0.1", AGENT_STATUS_PORT, "/healthz/ready", pod)
            if spec.program != "client":
                ready.http(pod, "127.0.0.1", replicas.MODEL_PORT, replicas.ready_path(spec), pod)

    def _stop(self, component: str) -> None:
        self.parts.supervisor.stop(self._known(component))

    def start(self, component: str) -> None:
        program = self._known(component)
        self.parts.supervisor.start(program)
        if program == PROGRAM_OF["management"]:  # behind its sidecar, so asked from inside its pod
            self.parts.readiness.http(program, "127.0.0.1", replicas.MODEL_PORT, "/ready", program)
        if component in HEALTH:
            pod, port, path = HEALTH[component]
            self.parts.readiness.http(program, PODS[pod], port, path)
        elif component in WATCHERS:
            self.await_watchers(component)

    def _kill(self, component: str) -> None:
        self.parts.supervisor.signal(self._known(component), "KILL")

    def running(self, *names_: str) -> list[RunningProgram]:
        record = self.record
        binaries = {name: Path(path) for name, path in record.binaries.items()}
        return processes.running(self.box, pins.read(self.state, record.release), binaries, names_)

    def components(self) -> list[ComponentStatus]:
        added = set(self.record.added)
        return [
            replace(each, added=each.name.removesuffix(".proxy") in added) for each in self.parts.supervisor.status()
        ]

    def diagnose(self) -> dict[str, str]:
        """What to look at when something is wrong: what does not run, and the ends of the logs that matter."""
        found = {"components": "\n".join(f"{each.name}: {each.state} {each.detail}" for each in self.components())}
        for name in ("envoy-gateway", "istiod", PROGRAM_OF["istio-ingressgateway"], "kube-apiserver"):
            found[f"end of {name}.log"] = _tail(self.parts.supervisor.log(name))
        return found

    def _known(self, component: str) -> str:
        program = PROGRAM_OF.get(component, component)
        known = {each.name for each in self.components()}
        if program not in known:
            raise SetupProblem(
                f"the local platform has no component {component!r}", f"known: {', '.join(sorted(known))}"
            )
        return program

    def _programs_of(self, workload: Workload) -> list[str]:
        known = {each.name for each in self.components()}
        return [name for name in (pod_name(workload), f"{pod_name(workload)}.proxy") if name in known]


def _tail(log: Path, lines: int = 40) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
