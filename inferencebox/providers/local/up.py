"""Brings the local platform up: a graph of steps, as much as possible at the same time."""

import base64
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.manifests import load
from inferencebox.paths import manifests_dir, state_dir
from inferencebox.pki import Authority
from inferencebox.platform import Endpoint, Workload, WorkloadSpec
from inferencebox.programs import Progress, module_files, provide
from inferencebox.providers import pins, replicas
from inferencebox.providers.capabilities import logs as logs_capabilities
from inferencebox.providers.capabilities import telemetry as telemetry_capabilities
from inferencebox.providers.exclusive import alone
from inferencebox.providers.leftovers import clear
from inferencebox.providers.options import LOG_PROGRAMS, PlatformOptions
from inferencebox.release import Release

from . import box, logs, names, objects, snapshot, supervisor, telemetry, upgrade, workloads
from .addresses import KUBERNETES_PORT, NODE, PODS
from .capabilities import CAPABILITIES
from .door import Door
from .gateway_agent import SYSTEM
from .gateways import Gateways
from .mesh import pod_name
from .models import trained_models
from .network import Pod
from .parts import Parts
from .platform import HEALTH, PROGRAM_OF, LocalPlatform
from .state import Record, RecordFile
from .supervisor import Program

PROGRAMS = (
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd", "envoy-gateway",
    "ai-gateway-controller", "ai-gateway-extproc", "ratelimit", "pilot-discovery", "pilot-agent", "envoy",
    "redis-server", "iptables",
)  # fmt: skip
WISHED_PORTS = {"gateway": 8080, "jwt-server": 8081, "management": 8085, "prometheus": 9090, "jaeger": 16686}
TIER_1_HTTP, TIER_1_HTTPS = 80, 443
# GEO-01: where the second gateway of this platform is, as a node would say it
TIER_2_LOCALITY = "eu/eu-1/eu-1a"
# Secret -> whose certificate it holds: what came with a token, and what came with an API key
# (manifests/gateway/tier2.yaml)
TIER_1_ACCOUNTS = {"tier1-client": "ai-gateway", "tier1-client-published": "ai-gateway-published"}


@dataclass
class Ascent:
    """One bring-up: what it needs, and the steps.

    Args:
        instance: name of the platform.
        release: what to run.
        options: how the platform should be.
        progress: is told of programs being provided.
    """

    instance: str
    release: Release
    options: PlatformOptions
    progress: Progress
    binaries: dict[str, Path] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    placed: list[tuple[WorkloadSpec, Workload]] = field(default_factory=list)
    tier2: Workload = field(init=False)
    restored: bool = False

    def __post_init__(self) -> None:
        self.state = state_dir(self.instance)
        self.tier2 = Workload(
            namespace="istio-system",
            name="istio-ingressgateway",
            app="istio-ingressgateway",
            version="v1",
            address=PODS["istio-system.istio-ingressgateway"],
            labels={"app": "istio-ingressgateway", "istio": "ingressgateway", **workloads.IN_MESH_LABEL},
            locality=TIER_2_LOCALITY,
            mesh=False,
            service_account="istio-ingressgateway",
        )

    @property
    def parts(self) -> Parts:
        return Parts(self.state, self.binaries)

    @property
    def gateways(self) -> Gateways:
        kubeconfig = self.parts.control_plane.kubeconfig
        return Gateways(self.state / "tier1", self.state / "certs", self.binaries, self.envoy_version, kubeconfig)

    @property
    def watched(self) -> bool:
        """Whether there is a pod for what the platform says of itself."""
        return self.options.telemetry or self.options.logs

    @property
    def envoy_version(self) -> str:
        """As Envoy Gateway writes it, without a `v`."""
        return self.release.layers["envoy"].version.removeprefix("v")

    def steps(self) -> Mapping[str, dag.Step]:
        """What there is to do. Long chains first: API server, policies, sidecars."""
        steps = {
            "programs": dag.Step(self.get_programs),
            "models": dag.Step(self.get_models),
            "files": dag.Step(self.write_files, ["programs"]),
            "box": dag.Step(self.make_box, ["programs"]),
            "kubernetes": dag.Step(self.start_kubernetes, ["files", "box"]),
            "networks": dag.Step(self.plug_in, ["box"]),
            "services": dag.Step(self.start_services, ["files", "networks", "models"]),
            "base": dag.Step(self.apply_base, ["kubernetes", "networks"]),
            "istiod": dag.Step(self.start_istiod, ["base", "services"]),
            "ai-gateway": dag.Step(self.start_ai_gateway, ["base", "services"]),
            "policies": dag.Step(self.apply_policies, ["base"]),
            "envoy-gateway": dag.Step(self.start_envoy_gateway, ["policies", "ai-gateway"]),
            "sidecars": dag.Step(self.start_sidecars, ["istiod", "services", "policies"]),
            "ready": dag.Step(self.await_gateways, ["envoy-gateway", "sidecars"]),
        }
        if self.options.telemetry:
            steps["telemetry"] = dag.Step(self.start_telemetry, ["files", "networks"])
            steps["telemetry-ready"] = dag.Step(self.await_telemetry, ["telemetry", "sidecars"])
        if self.options.logs:
            steps["logs"] = dag.Step(self.start_logs, ["files", "networks"])
            steps["logs-ready"] = dag.Step(self.await_logs, ["logs", "sidecars"])
        return steps

    def get_programs(self) -> None:
        watchers = telemetry.PROGRAMS if self.options.telemetry else ()
        wanted = (*PROGRAMS, *watchers, *(LOG_PROGRAMS if self.options.logs else ()))
        found = provide(self.release, wanted, self.progress)
        self.binaries.update(found)
        self.binaries["iptables-restore"] = found["iptables"].with_name("iptables-restore")
        for layer in ("istio", "envoy-gateway", "ai-gateway", "kserve"):
            self.files[layer] = module_files(self.release, layer, self.progress)

    def get_models(self) -> None:
        if self.options.models == "stub":
            return
        models = trained_models()
        target = self.state / "models"
        if not target.exists():
            target.symlink_to(models)

    def write_files(self) -> None:
        self.parts.control_plane.prepare()
        self.parts.mesh.prepare()
        bootstrap = self.files["istio"] / "tools" / "packaging" / "common" / "envoy_bootstrap.json"
        shutil.copyfile(bootstrap, self.parts.mesh.home / "envoy_bootstrap.json")
        self.gateways.prepare()
        crds = objects.crd_files(self.files)
        self.restored = snapshot.restore(self.parts.control_plane, crds)

    def make_box(self) -> None:
        names.write(self.state)
        box.create(self.state, box.project_python())
        self.parts.networks.start_plumber(self.parts.supervisor, box.project_python())
        self.parts.door.open(self.options.owner)

    def plug_in(self) -> None:
        kubernetes = f"{NODE}:{KUBERNETES_PORT}"
        values = {"state": str(self.state), "kubernetes": kubernetes, "gateway": PODS["envoy-gateway"]}
        entries = load(manifests_dir() / "providers" / "local" / "workloads.yaml", values)
        specs = [_spec(entry, self.options.models) for entry in entries]
        self.placed = list(zip(specs, workloads.place(specs, []), strict=True))
        if self.watched:
            self.placed.append((telemetry.POD, telemetry.workload()))
        placed = [workload for _, workload in self.placed]
        own = workloads.pods_of(placed)
        named = {pod.name for pod in own}
        pods = [Pod(name, address) for name, address in PODS.items() if name not in named] + own
        self.parts.networks.add(pods, self.binaries["iptables-restore"])

    def start_kubernetes(self) -> None:
        plane = self.parts.control_plane
        programs = plane.programs()
        self.parts.supervisor.add(programs)
        self.parts.supervisor.start("etcd", "kube-apiserver")
        port = self.parts.door.forward(NODE, KUBERNETES_PORT)
        plane.outside_kubeconfig(self.state / "kubeconfig", port)
        home = self.state / "kubernetes"
        authority = home / "ca.crt"
        client = _client_files(plane.kubeconfig, home)
        self.parts.readiness.kubernetes(f"https://127.0.0.1:{port}", authority, *client)
        if not self.restored:
            crds = objects.crd_files(self.files)
            snapshot.install_crds(self.parts.kubectl, crds)
            snapshot.take(plane, crds, self.parts.supervisor)
            self.parts.readiness.kubernetes(f"https://127.0.0.1:{port}", authority, *client)
        self.parts.supervisor.start("kube-controller-manager", "kube-scheduler")

    def start_services(self) -> None:
        """Everything that needs no API: Redis, the JWT server, the models."""
        jwt = Program(
            "jwt-server",
            [
                str(box.project_python().parent / "jwt-server"), "serve", "--host", "0.0.0.0", "--port", "8080",
                "--keys", str(self.state / "jwt-keys"), "--demo-tokens",
            ],
            pod="jwt-server",
        )  # fmt: skip
        made = (
            workloads.program(
                spec,
                workload,
                self.state / "models",
                replicas.spans(spec.namespace, spec.app) if self.options.telemetry else None,
            )
            for spec, workload in self.placed
        )
        programs = [jwt, *(program for program in made if program is not None)]
        programs += self.gateways.programs()
        self.parts.supervisor.add(programs)
        later = {"envoy-gateway", "ai-gateway-controller", "ratelimit"}
        self.parts.supervisor.start(*(program.name for program in programs if program.name not in later))

    def apply_base(self) -> None:
        system = [objects.namespace(name) for name in objects.SYSTEM_NAMESPACES]
        self.parts.kubectl.apply([*system, *policies.part_namespaces(), *policies.tenant_namespaces()])
        authority = Authority.create("inferencebox edge")
        edge = authority.issue("gateway", hosts=("127.0.0.1", *policies.edge_names()))
        (self.state / "edge-ca.crt").write_bytes(authority.pair.certificate)
        mesh_root = self.parts.mesh.root_certificate.read_bytes()
        tier2 = self.parts.mesh.issue_for("ns/istio-system/sa/istio-ingressgateway", policies.TIER_2_HOSTS)
        tls = "kubernetes.io/tls"
        secrets = [objects.secret(SYSTEM, name, data) for name, data in self.gateways.secrets().items()]
        secrets += [
            objects.secret(policies.GATEWAY_NAMESPACE, "ai-gateway-tls", _tls(edge.certificate, edge.key), tls),
            objects.secret(policies.GATEWAY_NAMESPACE, "tier2-ca", {"ca.crt": mesh_root}),
            objects.secret("istio-system", "tier2-tls", {**_tls(tier2.certificate, tier2.key), "ca.crt": mesh_root}),
        ]
        for name, account in TIER_1_ACCOUNTS.items():
            client = self.parts.mesh.issue_for(f"ns/{SYSTEM}/sa/{account}")
            secrets.append(objects.secret(policies.GATEWAY_NAMESPACE, name, _tls(client.certificate, client.key), tls))
        accounts = [objects.service_account(each.namespace, each.service_account) for each in self._meshed()]
        self.parts.kubectl.apply([*secrets, *accounts, objects.webhook(self.gateways.webhook_authority)])

    def start_istiod(self) -> None:
        # an istiod that cannot fetch the keys twice gives fake ones to all and never asks again by itself (1.26.2,
        # pilot/pkg/model/jwks_resolver.go: a failed refresh forgets an entry without a key)
        _, port, path = HEALTH["jwt-server"]
        self.parts.readiness.http("jwt-server", PODS["jwt-server"], port, path)
        self.parts.supervisor.run([self.parts.mesh.istiod()])
        self.parts.readiness.http("istiod", PODS["istiod"], 8080, "/ready")

    def start_ai_gateway(self) -> None:
        self.parts.supervisor.start("ai-gateway-controller")
        controller = "ai-gateway-controller"
        self.parts.readiness.until(lambda: self._listens(controller, 1063), "the AI Gateway's controller", controller)

    def apply_policies(self) -> None:
        for batch in policies.batches(self.options.limits):
            self.parts.kubectl.apply(batch)
        values = {"state": str(self.state), "envoy_version": self.envoy_version}
        proxy = policies.proxy("local", values)
        spans = load(manifests_dir() / "providers" / "local" / "spans.yaml")
        more = telemetry.objects() if self.watched else []
        stand_ins = objects.gateway_stand_ins(policies.GATEWAY, policies.GATEWAY_NAMESPACE)
        self.parts.kubectl.apply([*proxy, *spans, *more, *stand_ins])
        self.parts.kubectl.run(
            "patch", "deployment", f"envoy-{policies.GATEWAY_NAMESPACE}-{policies.GATEWAY}", "-n", SYSTEM,
            "--subresource=status", "--type=merge", "-p", json.dumps(objects.DEPLOYMENT_STATUS),
        )  # fmt: skip
        names.write(self.state, self.parts.kubectl)
        self._write_account("default", "management")

    def _write_account(self, namespace: str, name: str) -> None:
        """The token that a kubelet would mount into the pod; the program waits for it."""
        folder = self.state / "accounts"
        folder.mkdir(mode=0o700, exist_ok=True)
        token = self.parts.kubectl.run("create", "token", name, "-n", namespace, "--duration", "24h").strip()
        partial = folder / f".{name}"
        partial.touch(mode=0o600)
        partial.write_text(token)
        partial.replace(folder / name)

    def start_envoy_gateway(self) -> None:
        agent = Program(
            "ai-gateway-extproc",
            [
                str(box.project_python()), "-m", "inferencebox.providers.local.gateway_agent",
                str(self.parts.control_plane.kubeconfig), policies.GATEWAY, policies.GATEWAY_NAMESPACE,
                str(self.binaries["ai-gateway-extproc"]), str(self.state / "tier1"),
            ],
            pod="envoy-gateway",
            stop_seconds=1,
        )  # fmt: skip
        self.parts.supervisor.add([agent])
        self.parts.supervisor.start("envoy-gateway", "ai-gateway-extproc")
        self.parts.readiness.http("envoy-gateway", PODS["envoy-gateway"], 8081, "/readyz")
        self.parts.supervisor.start("ratelimit")

    def start_telemetry(self) -> None:
        certificate = self.parts.mesh.issue_for(telemetry.IDENTITY)
        self.parts.telemetry.prepare(certificate, self.parts.mesh.root_certificate.read_bytes())
        self.parts.telemetry.write_targets(workload for _, workload in self.placed)
        self.parts.supervisor.run(self.parts.telemetry.programs())

    def await_telemetry(self) -> None:
        LocalPlatform(self.instance).await_watchers(*telemetry.HEALTH)

    def start_logs(self) -> None:
        self.parts.collected.prepare()
        self.parts.supervisor.run(self.parts.collected.programs())

    def await_logs(self) -> None:
        LocalPlatform(self.instance).await_watchers(*logs.HEALTH)

    def start_sidecars(self) -> None:
        self._record()
        platform = LocalPlatform(self.instance)
        token = platform.token_for(self.tier2)
        self.parts.supervisor.run([self.parts.mesh.sidecar(self.tier2, token, router=True)])
        platform.run_workloads(self.placed, start_programs=False)

    def await_gateways(self) -> None:
        ready = self.parts.readiness
        for component in ("istio-ingressgateway", "jwt-server", "ratelimit"):
            pod, port, path = HEALTH[component]
            ready.http(PROGRAM_OF.get(component, component), PODS[pod], port, path)
        ready.until(lambda: self._listens("envoy-gateway", TIER_1_HTTP), "tier 1 listening", "envoy-gateway")
        ready.until(lambda: self._listens("envoy-gateway", 1064), "the AI Gateway's processor", "ai-gateway-extproc")

    def upgrade(self) -> LocalPlatform:
        """What the release pins otherwise than what runs now takes its place; nothing if nothing is.

        Raises:
            SetupProblem: it can't be replaced as long as the platform is up: what; or it did not get ready.
        """
        platform = LocalPlatform(self.instance)
        changed = upgrade.wanted(pins.read(self.state, platform.release), self.release)
        if changed:
            found = provide(self.release, changed, self.progress)
            self.binaries = {name: Path(path) for name, path in platform.record.binaries.items()}
            before = self.gateways.programs()
            self.binaries |= found
            upgrade.replace(platform, changed, before, self.gateways.programs())

        def note(record: Record) -> None:
            record.release = self.release.name
            record.binaries |= {name: str(self.binaries[name]) for name in changed}

        RecordFile(self.state).change(note)
        pins.write(pins.path(self.state), self.release)
        platform = LocalPlatform(self.instance)
        platform.changed = changed
        return platform

    def _record(self) -> None:
        addresses = {
            "gateway": ("http", PODS["envoy-gateway"], TIER_1_HTTP, ""),
            "gateway-tls": ("https", PODS["envoy-gateway"], TIER_1_HTTPS, ""),
            "tier2": ("https", PODS["istio-system.istio-ingressgateway"], 443, ""),
            "tier2-http": ("http", PODS["istio-system.istio-ingressgateway"], 80, ""),
            "jwt-server": ("http", "127.0.0.1", 8080, "jwt-server"),
            "management": ("http", "127.0.0.1", replicas.MODEL_PORT, "default.management"),
            "kubernetes": ("https", NODE, KUBERNETES_PORT, ""),
            "istiod": ("http", PODS["istiod"], 15014, ""),
        }
        if self.options.telemetry:
            addresses |= {
                name: ("http", "127.0.0.1", port, telemetry.pod_of(name))
                for name, (port, _) in telemetry.HEALTH.items()
            }
        if self.options.logs:
            addresses["loki"] = ("http", "127.0.0.1", logs.PORT, pod_name(telemetry.workload()))
        endpoints = {
            name: Endpoint(scheme, "localhost", self.parts.door.forward(address, port, pod, WISHED_PORTS.get(name, 0)))
            for name, (scheme, address, port, pod) in addresses.items()
        }
        record = Record(
            release=self.release.name,
            endpoints=endpoints,
            capabilities={
                **CAPABILITIES,
                **telemetry_capabilities(self.options.telemetry),
                **logs_capabilities(self.options.logs),
            },
            binaries={name: str(path) for name, path in self.binaries.items()},
            workloads=[workload for _, workload in self.placed],
        )
        RecordFile(self.state).write(record)

    def _meshed(self) -> Sequence[Workload]:
        return [self.tier2, *(workload for _, workload in self.placed if workload.mesh)]

    def _listens(self, pod: str, port: int) -> bool:
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/{PODS[pod]}/{port}"]
        return box.require(self.state).run(probe, timeout=5).returncode == 0


def bring_up(
    instance: str, release: Release, options: PlatformOptions, progress: Progress, listener: dag.Listener
) -> LocalPlatform:
    """A platform that is up when this returns; one that was up already is left as it is, but for other pins.

    One that somebody is bringing up is waited for; half of one, left by a run that was killed, is cleared away.
    """
    state = state_dir(instance)
    state.mkdir(parents=True, exist_ok=True)
    with alone(state):
        ascent = Ascent(instance, release, options, progress)
        if box.find(state) is not None and _is_complete(state):
            Door(state).open()
            return ascent.upgrade()
        take_down(instance)
        state.mkdir(parents=True, exist_ok=True)
        supervisor.write_config(state)
        try:
            timeline = dag.run(ascent.steps(), listener)
        except BaseException:
            take_down(instance, keep_logs=True)
            raise
        RecordFile(state).change(lambda record: record.layers.update(timeline.seconds))
        pins.write(pins.path(state), release)
        return LocalPlatform(instance)


def _is_complete(state: Path) -> bool:
    """Whether its bring-up came to its end: only then the record says how long each layer took."""
    try:
        return bool(RecordFile(state).read().layers)
    except (OSError, ValueError, SetupProblem):
        return False


def take_down(instance: str, keep_logs: bool = False) -> None:
    """End everything of this instance. Safe to call at any time, also after a crash."""
    state = state_dir(instance)
    running = box.find(state)
    if running is not None:
        running.kill()
    shutil.rmtree(box.sockets_dir(state), ignore_errors=True)
    clear(state, keep_logs)


def _spec(entry: Mapping[str, Any], models: str) -> WorkloadSpec:
    spec = WorkloadSpec(**entry)
    if models == "stub" and spec.program == "model":
        return replace(spec, program="stub-model")
    return spec


def _tls(certificate: bytes, key: bytes) -> dict[str, bytes]:
    return {"tls.crt": certificate, "tls.key": key}


def _client_files(kubeconfig: Path, folder: Path) -> tuple[Path, Path]:
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    paths = folder / "admin.crt", folder / "admin.key"
    for path, entry in zip(paths, ("client-certificate-data", "client-key-data"), strict=True):
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(user[entry]))
    return paths
