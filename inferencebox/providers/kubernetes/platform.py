"""A running platform on a Kubernetes cluster, as scenarios see it."""

import json
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx

from inferencebox.errors import SetupProblem
from inferencebox.layers.labels import INSTANCE
from inferencebox.layers.readiness import Target, wait_until_ready, why_not_ready
from inferencebox.paths import state_dir
from inferencebox.platform import ComponentStatus, Endpoint, Platform, RunningProgram, Workload, WorkloadSpec
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube, is_ready
from inferencebox.probes.prometheus import Prometheus
from inferencebox.providers import pins, replicas
from inferencebox.release import Release
from inferencebox.turns import slot

from . import inside, objects, state
from .door import Door
from .inside import Place
from .logs import OTHERS

READY_SECONDS = 180.0
ENDING_SECONDS = 20.0
AT_ONCE = (["--grace-period=1"], ["--grace-period=0", "--force"])
"""How pods are ended that are ending already. Their kubelet does not always hear that it is to be sooner
(https://github.com/kubernetes/kubernetes/issues/83916; seen once): then they are given up."""
ROOM_SECONDS = 120.0
KEYS = "/var/lib/jwt-server/keys"
READ_KEYS = (
    "import json, pathlib, sys; "
    "print(json.dumps({f.name: f.read_text() for f in pathlib.Path(sys.argv[1]).iterdir() if f.is_file()}))"
)
PROCESS = "cat /proc/$(cat /run/keeper/pid)/stat"
"""Says what the kernel knows of a replica's program (`objects.KEEPER`)."""
NAMES = {"envoy-ratelimit": "ratelimit"}
"""Deployment -> what scenarios call it, where that differs."""
TIER_1 = {"gateway.envoyproxy.io/owning-gateway-name": "ai-inference-gateway"}
TIER_2 = {"istio": "ingressgateway"}
REVISION = "serving.knative.dev/revision"
"""On a Deployment that Knative scales, to none as well: not a part but a model, whose pods are its replicas."""
STOPPED = {"inference-in-a-box/stopped": "true"}
"""What no node is labelled with: a DaemonSet that wants it has no pods."""
ASKING_SECONDS = 20.0
MONITORING = "monitoring"
MORE_RULES = "/etc/prometheus/more-rules"
"""Where Prometheus reads rules that are loaded beside the shipped ones (manifests/layers/telemetry)."""
Object = Mapping[str, Any]


class KubernetesPlatform(Platform):
    """A platform whose parts are pods."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.state = state_dir(instance)
        record = state.read(self.state)
        self.provider = record.provider
        self.release = record.release
        self.capabilities = record.capabilities
        self.endpoints = record.endpoints
        self.changed = record.changed
        self.kubeconfig = self.state / "kubeconfig"
        self.logs = self.state / "logs"
        self.edge_ca = self.state / "edge-ca.crt"
        self.mesh_ca = self.state / "mesh-ca.crt"
        self._record = record
        self.door = Door(self.state)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "kube"}

    @cached_property
    def kube(self) -> Kube:
        """For the platform's own sake: what a scenario asks of the API it asks by itself, and that is evidence."""
        return Kube(self.kubeconfig).quietly()

    @property
    def signing_keys(self) -> Path:  # type: ignore[override]  # asked for each time: keys are rolled
        folder = self.state / "jwt-keys"
        pod = next(iter(self.kube.list("pods", "default", "app=jwt-server").items), None)
        if pod is None:
            return folder
        done = self._run(Place("default", pod["metadata"]["name"]), ["python3", "-c", READ_KEYS, KEYS])
        if done.returncode == 0:
            folder.mkdir(mode=0o700, exist_ok=True)
            files = json.loads(done.stdout)
            for gone in {file.name for file in folder.iterdir()} - files.keys():
                (folder / gone).unlink()
            for name, text in files.items():
                (folder / name).touch(mode=0o600)
                (folder / name).write_text(text)
        return folder

    # --- addresses

    def endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise SetupProblem(f"the platform has no entrance {name!r}", f"known: {', '.join(sorted(self.endpoints))}")
        return self.endpoints[name]

    def forward(self, workload: Workload, port: int) -> Endpoint:
        pod = f"{workload.namespace}/{workload.name}"
        return Endpoint("http", "127.0.0.1", self.door.forward("127.0.0.1", port, pod))

    def reach(self, address: str, port: int) -> Endpoint:
        return Endpoint("http", "127.0.0.1", self.door.forward(address, port))

    # --- commands

    def run_in(
        self, workload: Workload, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        return self._run(Place(workload.namespace, workload.name), argv, stdin, timeout)

    def run_beside(
        self, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        return self._run(Place(objects.OURS, objects.BESIDE), argv, stdin, timeout)

    def _run(
        self, place: Place, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        """Where there is a shell; a command of which something was lost on the way out is given once more.

        Raises:
            SetupProblem: that was lost as well.
        """
        for _ in range(2):
            if done := inside.whole(self._exec(place, inside.marked(argv), stdin, timeout)):
                return done
        raise SetupProblem(
            f"what {argv[0]} wrote in {place} was lost on the way out, twice",
            "the API server or the pod's kubelet loses connections: see what the machine is busy with",
        )

    def _exec(
        self, place: Place, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        """Also where there is no shell; that something was lost on the way out is not noticed."""
        flags = [*(["-i"] if stdin is not None else []), *place.flags]
        command = [self._record.kubectl, "--kubeconfig", str(self.kubeconfig), "exec", *flags, "--", *argv]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)

    # --- replicas

    def cpu_seconds(self, workload: Workload) -> float:
        return replicas.cpu_seconds(self.run_in(workload, ["sh", "-c", PROCESS]).stdout.decode())

    def workloads(self, namespace: str | None = None, **labels: str) -> list[Workload]:
        found = [objects.workload(pod) for pod in self.kube.list("pods", namespace).items if objects.is_ours(pod)]
        return [
            each for each in found if all(each.labels.get(name) == value for name, value in labels.items())
        ]  # fmt: skip

    def _add_workloads(self, specs: Sequence[WorkloadSpec]) -> list[Workload]:
        try:
            with self.starting():
                return self.place(specs, added=True)
        except BaseException:
            self._delete([(spec.namespace, spec.name) for spec in specs])
            raise

    def place(self, specs: Sequence[WorkloadSpec], added: bool) -> list[Workload]:
        """Make replicas; returns when each is ready."""
        for document in documents(specs, self._record.images, added, self._is_watched):
            metadata = document["metadata"]
            metadata["labels"] = {**metadata.get("labels", {}), INSTANCE: self.instance}
            self._apply_within_quota(document)
        deadline = time.monotonic() + READY_SECONDS
        for namespace in {spec.namespace for spec in specs}:
            names = frozenset(spec.name for spec in specs if spec.namespace == namespace)
            wait_until_ready(self.kube, Target("Pod", namespace, names), deadline, lambda _: None)
        return [self._await_program(spec) for spec in specs]

    def _apply_within_quota(self, document: Object) -> None:
        """Scenarios at the same time share a tenant's quota: who finds it used up waits until another has gone."""
        applied = poll(
            lambda: self.kube.apply([document])[0],
            ROOM_SECONDS,
            every=2.0,
            until=lambda reply: reply.cause != "quota",
        )
        applied.require()

    def _await_program(self, spec: WorkloadSpec) -> Workload:
        """A pod without a probe of its own is ready before its program answers."""
        placed = objects.workload(self.kube.get("pod", spec.name, spec.namespace).require())
        if spec.program != "client" and not poll(lambda: self._answers(placed, spec), READY_SECONDS, every=0.1):
            raise SetupProblem(f"{spec.namespace}/{spec.name} does not answer", "see its log")
        return placed

    def _answers(self, workload: Workload, spec: WorkloadSpec) -> bool:
        url = self.forward(workload, replicas.MODEL_PORT).url + replicas.ready_path(spec)
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def starting(self) -> AbstractContextManager[None]:
        """One slot for every two cores of the largest node: that is what a pod takes that starts, with its sidecar."""
        return slot(self.state, "starting", self._starts_at_once)

    @cached_property
    def _starts_at_once(self) -> int:
        cores = [int(node["status"]["capacity"]["cpu"]) for node in self.kube.list("nodes").items]
        return max(1, max(cores, default=0) // 2)

    def remove_workloads(self, workloads: Sequence[Workload]) -> None:
        self._delete([(workload.namespace, workload.name) for workload in workloads])

    def _delete(self, pods: Sequence[tuple[str, str]]) -> None:
        for namespace, name in pods:
            self.kube.delete("pod", name, namespace)
        poll(lambda: not any(self.kube.get("pod", name, namespace).ok for namespace, name in pods), 30, every=0.2)

    def container(self, program: str, arguments: Sequence[str] = ()) -> tuple[str, list[str]]:
        spec = WorkloadSpec("", "", "", program=program, env={"ARGUMENTS": json.dumps([*arguments])})
        image = self._record.images[_IMAGE_OF_PROGRAM.get(program, program)]
        return image, replicas.command(spec, objects.MODELS)

    # --- telemetry

    @property
    def _is_watched(self) -> bool:
        return self.capabilities.get("prometheus", "") is None

    def load_rules(self, name: str, content: str | None) -> None:
        file = f"{MORE_RULES}/{name}.yaml"
        if content is not None and self._in_prometheus(f"if [ -e {file} ]; then cat {file}; fi") == content:
            return
        self._in_prometheus(f"rm -f {file}" if content is None else f"cat > {file}", content)
        Prometheus(self.endpoint("prometheus")).read_rules_anew(name, str(file))

    def _in_prometheus(self, script: str, stdin: str | None = None) -> str:
        """What a script says in the pod of Prometheus."""
        found = objects.pod_behind(self.kube, MONITORING, "prometheus", 9090)
        if found is None:
            raise SetupProblem("Prometheus does not run", "see `ibox status`")
        told = stdin.encode() if stdin is not None else None
        done = self._run(Place(MONITORING, found[0], "prometheus"), ["sh", "-c", script], told)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise SetupProblem(f"Prometheus' pod cannot be told: {said}", "see `ibox status`")
        return done.stdout.decode()

    # --- components

    def components(self) -> list[ComponentStatus]:
        parts = [each for each in self._parts() if REVISION not in each["metadata"].get("labels", {})]
        pods = self._ours("Pod")
        return [*(_part(each, pods) for each in parts), *(_replica(pod) for pod in pods if _is_replica(pod))]

    def _stop(self, component: str) -> None:
        if pod := self._replica_named(component):
            self._keeper(pod, "touch /run/keeper/stopped; kill $(cat /run/keeper/pid)")
            return
        self._halt(self._part_named(component))

    def start(self, component: str) -> None:
        if pod := self._replica_named(component):
            self._keeper(pod, "rm -f /run/keeper/stopped")
            return
        self._resume(self._part_named(component))

    def _kill(self, component: str) -> None:
        if pod := self._replica_named(component.removesuffix(".proxy")):
            if component.endswith(".proxy"):
                quit_now = ["pilot-agent", "request", "POST", "quitquitquit"]
                self._exec(replace(pod, container=objects.SIDECAR), quit_now)
            else:
                self._keeper(pod, "kill -9 $(cat /run/keeper/pid)")
            return
        found = self._part_named(component)
        namespace = found["metadata"]["namespace"]
        for pod_ in self.kube.list("pods", namespace, _selector(found)).items:
            command = ["delete", "pod", pod_["metadata"]["name"], "-n", namespace, "--grace-period=0", "--force"]
            self._kubectl(*command, "--wait=false")

    def running(self, *names: str) -> list[RunningProgram]:
        record = state.read(self.state)
        release = pins.read(self.state, record.release)
        by_image = {reference: name for name, reference in record.images.items()}
        pods = [pod for pod in self.kube.list("pods").items if _runs(pod)]
        return [found for pod in pods for found in self._programs(pod, release, by_image, names)]

    def diagnose(self) -> dict[str, str]:
        """What to look at when something is wrong: parts and pods that are not ready, and what was said of them."""
        parts = [part for part in self.components() if part.state != "running"]
        pods = [pod for pod in self._ours("Pod") if why_not_ready(pod)]
        told = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}: {why_not_ready(pod)}" for pod in pods]
        warnings = [
            f"{each['metadata']['namespace']} {each['involvedObject'].get('name')}: {each.get('message', '')}"
            for each in self.kube.list("events").items
            if each.get("type") == "Warning"
        ]
        return {
            "components": "\n".join(f"{part.name}: {part.state} {part.detail}" for part in parts) or "all run",
            "pods that are not ready": "\n".join(told) or "none",
            "last warnings": "\n".join(warnings[-40:]) or "none",
        }

    def _programs(
        self, pod: Object, release: Release, by_image: Mapping[str, str], names: Sequence[str]
    ) -> Iterator[RunningProgram]:
        """Programs of a pod's containers, known by the images that they run from."""
        states = {each["name"]: each for each in pod["status"].get("containerStatuses", [])}
        for container in pod["spec"]["containers"]:
            name = _PROGRAM_OF_IMAGE.get(by_image.get(container["image"], ""), by_image.get(container["image"], ""))
            pin = release.programs.get(name)
            run = states.get(container["name"], {}).get("state", {}).get("running")
            if pin is None or run is None or (names and name not in names):
                continue
            if pin.version_check:
                argv = [f"/{_path_in_image(name)}", *pin.version_check.arguments]
                place = Place(pod["metadata"]["namespace"], pod["metadata"]["name"], container["name"])
                done = self._exec(place, argv, timeout=ASKING_SECONDS)
                told = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
            elif names:
                told = str(states[container["name"]]["image"])  # it says nothing itself; the kubelet says what it runs
            else:
                continue
            number = _identity([states[container["name"]]["containerID"]])
            yield RunningProgram(name, number, run["startedAt"], told, _tier(pod))

    def _ours(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind that are not the cluster's own. In lists the API server leaves their kind out."""
        found = self.kube.list(kind).items
        return [{**each, "kind": kind} for each in found if each["metadata"]["namespace"] not in OTHERS]

    def _parts(self) -> list[dict[str, Any]]:
        return [*self._ours("Deployment"), *self._ours("DaemonSet")]

    def _part_named(self, component: str) -> Object:
        parts = self._parts()
        found = {f"{each['metadata']['namespace']}.{each['metadata']['name']}": each for each in parts}
        found |= {_component_name(each): each for each in parts}
        if component not in found:
            raise SetupProblem(f"the platform has no component {component!r}", f"known: {', '.join(sorted(found))}")
        return found[component]

    def _halt(self, found: Object) -> None:
        if found["kind"] == "DaemonSet":
            self._patch(found, {"template": {"spec": {"nodeSelector": STOPPED}}})
        else:
            self._patch(found, {"replicas": 0})
        self._end_pods(found)

    def _resume(self, found: Object) -> None:
        if found["kind"] == "DaemonSet":
            self._patch(found, {"template": {"spec": {"nodeSelector": dict.fromkeys(STOPPED)}}})
        else:
            self._patch(found, {"replicas": 1})
        self.await_part(found["kind"], found["metadata"]["name"], found["metadata"]["namespace"])

    def _patch(self, found: Object, spec: Mapping[str, Any]) -> None:
        name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
        self.kube.patch(found["kind"].lower(), name, namespace, {"spec": dict(spec)}).require()

    def await_part(self, kind: str, name: str, namespace: str, seconds: float = READY_SECONDS) -> None:
        """Until all pods of a Deployment or DaemonSet are ready, as it wants them now; for so many seconds at most."""
        target = Target(f"{kind}.apps", namespace, frozenset({name}))
        wait_until_ready(self.kube, target, time.monotonic() + seconds, lambda _: None)

    def _end_pods(self, found: Object) -> None:
        """At once, as in an outage: some parts are given minutes to say goodbye (the limiter 300 s)."""
        kind, name, namespace = found["kind"].lower(), found["metadata"]["name"], found["metadata"]["namespace"]
        selector = _selector(found)
        counted = "replicas" if kind == "deployment" else "desiredNumberScheduled"

        def given_up() -> bool:
            return not self.kube.get(kind, name, namespace).require()["status"].get(counted)

        poll(given_up, READY_SECONDS, every=0.1)
        for manner in AT_ONCE:
            self._kubectl("delete", "pod", "-l", selector, "-n", namespace, "--wait=false", *manner)
            if poll(lambda: not self.kube.list("pods", namespace, selector).items, ENDING_SECONDS, every=0.1):
                return
        raise SetupProblem(f"pods of {namespace}/{name} do not end", "see the log of their node's kubelet")

    def _replica_named(self, component: str) -> Place | None:
        namespace, _, name = component.partition(".")
        return Place(namespace, name) if name and self.kube.get("pod", name, namespace).ok else None

    def _keeper(self, pod: Place, script: str) -> None:
        done = self._run(pod, ["sh", "-c", script])
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise SetupProblem(f"the program of {pod} cannot be told: {said}", "see `ibox status`")

    def _kubectl(self, *arguments: str) -> None:
        command = [self._record.kubectl, "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise SetupProblem(f"kubectl {' '.join(arguments[:3])}: {done.stderr.strip()[-300:]}", "see `ibox status`")


def documents(
    specs: Sequence[WorkloadSpec], images: Mapping[str, str], added: bool, traced: bool
) -> list[dict[str, Any]]:
    """The pods of replicas, and whom they run as."""
    accounts = {(spec.namespace, spec.service_account or spec.app) for spec in specs}
    pods = [
        objects.pod(spec, images[_IMAGE_OF_PROGRAM.get(spec.program, spec.program)], added, traced) for spec in specs
    ]
    return [*(objects.service_account(*account) for account in sorted(accounts)), *pods]


_IMAGE_OF_PROGRAM = {"stub-model": "model-server", "model": "model-server"}
_PROGRAM_OF_IMAGE = {"istio-proxy": "envoy"}


def _runs(pod: Object) -> bool:
    """Whether it runs, and is not being ended: the limiter's are given five minutes for that."""
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _path_in_image(program: str) -> str:
    return f"usr/local/bin/{program}"


def _tier(pod: Object) -> str:
    labels = pod["metadata"].get("labels") or {}
    tiers = {"tier-1": TIER_1, "tier-2": TIER_2}
    return next((tier for tier, marks in tiers.items() if marks.items() <= labels.items()), "")


def _component_name(found: Object) -> str:
    labels = found["metadata"].get("labels") or {}
    if labels.items() >= TIER_1.items():
        return "ai-gateway-proxy"
    name = str(found["metadata"]["name"])
    return NAMES.get(name, name)


def _part(found: dict[str, Any], pods: Sequence[Object]) -> ComponentStatus:
    why = why_not_ready(found)
    state_ = "stopped" if _is_stopped(found) else "failed" if why else "running"
    labels = found["spec"]["selector"]["matchLabels"].items()
    mine = [pod for pod in pods if labels <= (pod["metadata"].get("labels") or {}).items()]
    runs = [each["containerID"] for pod in mine for each in _statuses(pod) if "containerID" in each]
    return ComponentStatus(_component_name(found), state_, _identity(runs) if runs else None, detail=why or "")


def _is_stopped(found: Object) -> bool:
    if found["kind"] == "DaemonSet":
        wanted = found["spec"]["template"]["spec"].get("nodeSelector") or {}
        return STOPPED.items() <= wanted.items()
    return bool(found["spec"].get("replicas", 1) == 0)


def _is_replica(pod: Object) -> bool:
    """A pod that counts by itself: another pod of a part is the same part."""
    is_of_a_part = pod["metadata"].get("ownerReferences") and not objects.is_served(pod)
    return objects.is_ours(pod) and not is_of_a_part


def _replica(pod: dict[str, Any]) -> ComponentStatus:
    metadata = pod["metadata"]
    runs = [each["containerID"] for each in _statuses(pod) if "containerID" in each]
    ready = is_ready(pod)
    return ComponentStatus(
        f"{metadata['namespace']}.{metadata['name']}",
        "running" if ready else "failed",
        _identity(runs) if runs else None,
        detail="" if ready else str(why_not_ready(pod)),
        added=objects.ADDED_LABEL in metadata["labels"] or objects.is_served(pod),
    )


def _statuses(pod: Object) -> list[dict[str, Any]]:
    return list(pod.get("status", {}).get("containerStatuses") or [])


def _identity(runs: Sequence[str]) -> int:
    """A number that stays the same for as long as the same containers run, as a process id does."""
    return zlib.crc32(" ".join(sorted(runs)).encode())


def _selector(found: Object) -> str:
    return objects.selector_of(found["spec"]["selector"]["matchLabels"])
