"""A Kubernetes cluster in this machine's engine: created, found again, filled with images, deleted.

Its life goes through pytest-kind's ``KindCluster`` (optional extra ``kind``; GPL-3.0-or-later, not part of what we
distribute), which is given our pinned kind and kubectl and so never downloads any.
"""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from inferencebox import policies, programs
from inferencebox.errors import SetupProblem
from inferencebox.paths import cache_dir, manifests_dir, state_dir
from inferencebox.polling import poll
from inferencebox.programs import Progress
from inferencebox.programs.store import Store, digest_of
from inferencebox.providers.kind import node
from inferencebox.providers.kind.engine import Engine
from inferencebox.providers.options import KindOptions
from inferencebox.release import Release

NAME = "inference-in-a-box"
DEFAULT_INSTANCE = "default"
NAME_FILE = "name"
NODE_LABEL = "io.x-k8s.kind.cluster"
PORT_HOST = "127.0.0.1"
REGION = "eu"
"""Of every node, and so of tier 2: where its requests come in (GEO-01)."""
READY_SECONDS = 240
ROUTE_SECONDS = 120
USUAL_NODES = 3
"""SPEC 1.1: a control plane and two workers."""
POLL_SECONDS = 0.5
NAMESPACES = ("kube-system", "local-path-storage")
LOADED = "/var/lib/inferencebox/loaded"
STORE = "/var/lib/inferencebox/store"
"""In a node: this machine's store of archives, where the engine is this machine's."""
SHARES = {"daemonset/kube-proxy": "50m", "deployment/coredns": "20m"}
"""What the cluster's own parts ask for. kubeadm asks for nothing for kube-proxy, so on a busy node it gets next to no
CPU: seen on two full cores, that half of the changes of a Service's pods arrived after 9 s or more, one in ten after
24 s. For DNS it asks for a tenth of a core, twice, which no pod can then be given."""
PROMPT = ("kubelet.service", "system.slice")
"""In a node: the kubelet, and containerd with the containers' shims."""
WEIGHT = "CPUWeight=900"
"""Nine times a unit's usual one, on Kind. They need a third of a core, in thousands of short turns, and all pods wait
for them: seen on two full cores, that the kubelet's loop stood still for up to 12 s (`Housekeeping took longer than
expected`, 47 times in five minutes) and a pod's first container began after 7 to 20 s; with this, after 2 to 3 s."""
FEW_CORES = 2
GO_SETTING = {"name": "GOMAXPROCS", "value": "1"}
"""For what keeps a cluster, on so few cores: a Go program spreads its turns over as many threads as there are cores,
which then wake one another all the time. Seen on two: a platform that nobody asks took 0.84 of them, not 1.0."""
GO_UNITS = ("kubelet", "containerd")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PATCHES = "/etc/kubernetes/patches"
"""On the control plane: what kubeadm changes of the pods that it makes (its `patches.directory`)."""
AUDIT_POLICY = "kubernetes-audit.yaml"
AUDIT_FOLDER = "/etc/kubernetes/audit"
"""On the control plane: what its API server notes (manifests/observability)."""
AUDIT_KEPT = {"audit-log-maxsize": "50", "audit-log-maxbackup": "2"}
"""Megabytes of one file, and how many older ones stay: what is older has long been collected."""
ZONES = ("zone-a", "zone-b", "zone-c")
WRAPPER = """#!/bin/sh
# The pinned kind, with what it says while it works kept in a log
PATH={path}:"$PATH" exec {kind} "$@" 2>>{log}
"""


@dataclass(frozen=True)
class Tools:
    """The pinned programs that a cluster is handled with."""

    kind: Path
    kubectl: Path


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Args:
        name: kind's name of it.
        home: where its kubeconfig, configuration and log are.
        engine: what its nodes run in.
        tools: kind and kubectl.
    """

    name: str
    home: Path
    engine: Engine
    tools: Tools

    @property
    def context(self) -> str:
        return f"kind-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def log(self) -> Path:
        return self.home / "kind.log"

    def nodes(self) -> list[str]:
        """Its nodes' containers, running or not."""
        words = ["ps", "--all", "--filter", f"label={NODE_LABEL}={self.name}", "--format", "{{.Names}}"]
        return sorted(self.engine.run(*words).split())

    def exists(self) -> bool:
        return bool(self.nodes())

    def create(self, image: str, nodes: int | None = None, ports: Sequence[int] = ()) -> None:
        """Create the cluster, or find it as it is, and wait until it can be used.

        Args:
            image: the node image's name in the engine.
            nodes: one control plane, and workers for the rest; none said: as many as there are, else three.
            ports: node ports that are reached from this machine; ``host_port`` says where.

        Raises:
            SetupProblem: it cannot be created, does not get ready, or is there with another number of nodes.
        """
        there = self.nodes()
        if there and nodes not in (None, len(there)):
            raise SetupProblem(
                f"the cluster {self.name} is there with {len(there)} nodes, not {nodes}",
                f"take it down first, or ask for --nodes {len(there)}",
            )
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / NAME_FILE).write_text(self.name)
        if there:
            self._wake(there)
            self._export_kubeconfig()
        config = self.home / "kind.yaml"
        policy = self.home / AUDIT_POLICY
        shutil.copyfile(manifests_dir() / "observability" / AUDIT_POLICY, policy)
        files = self._keep(for_few_cores()) if self.engine.cores() <= FEW_CORES else {}
        config.write_text(yaml.safe_dump(configuration(nodes or len(there) or USUAL_NODES, ports, policy, files)))
        try:
            with self._kind_cluster(image) as kind_cluster:
                kind_cluster.create(config)
        except subprocess.CalledProcessError as failure:
            raise SetupProblem(f"kind cannot create {self.name}: {self._said()}", f"read {self.log}") from failure
        self._wait()
        self._share_out()

    def _keep(self, files: Mapping[str, str]) -> dict[str, Path]:
        """Files for the nodes, written where the engine finds them: their place in a node -> here."""
        kept = {place: self.home / "node" / place.lstrip("/") for place in files}
        for place, path in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[place])
        return kept

    def _share_out(self) -> None:
        """Fit what kubeadm has put in the cluster to the nodes it is on: they have more to do than to be a cluster."""
        nodes = self.nodes()
        for name in nodes:
            for unit in PROMPT:
                self.engine.run("exec", name, "systemctl", "set-property", unit, WEIGHT)
        inside = ("--namespace", "kube-system")
        for part, cpu in SHARES.items():
            self.kubectl("set", "resources", part, *inside, f"--requests=cpu={cpu}")
        if len(nodes) == 1:
            self.kubectl("scale", "deployment/coredns", *inside, "--replicas=1")

    def delete(self) -> None:
        """Delete the cluster with all its volumes; no error if there is none."""
        with self._kind_cluster(None) as kind_cluster:
            try:
                kind_cluster.delete()
            except subprocess.CalledProcessError as failure:
                raise SetupProblem(f"kind cannot delete {self.name}: {self._said()}", f"read {self.log}") from failure
        shutil.rmtree(self.home, ignore_errors=True)

    def host_port(self, port: int) -> int:
        """The port of this machine that leads to a node port."""
        said = self.engine.run("port", f"{self.name}-control-plane", f"{port}/tcp")
        found = re.search(r":(\d+)\s*$", said)
        if not found:
            raise SetupProblem(f"{self.name} was created without node port {port}", "take it down, then up again")
        return int(found[1])

    def pod_logs(self) -> list[Path]:
        """Where the nodes' `/var/log/pods` are on the engine's machine: kind gives a node a volume for its `/var`.

        None if that of one is not known.
        """
        source = '{{range .Mounts}}{{if eq .Destination "/var"}}{{.Source}}{{end}}{{end}}'
        volumes = [self.engine.run("inspect", "--format", source, where).strip() for where in self.nodes()]
        return [Path(volume) / "log/pods" for volume in volumes] if all(volumes) else []

    def load(self, archives: Mapping[str, Path]) -> list[str]:
        """Put images into every node that lacks them; the names of those that were new to some node."""
        nodes = self.nodes()
        keys = {name: f"{name}-{_key(path)}" for name, path in archives.items()}
        with ThreadPoolExecutor() as pool:
            have = dict(zip(nodes, pool.map(self._loaded, nodes), strict=True))
            missing = [(where, name) for where in nodes for name in archives if keys[name] not in have[where]]
            for done in [pool.submit(self._load, where, archives[name], keys[name]) for where, name in missing]:
                done.result()
        return sorted({name for _, name in missing})

    def kubectl(self, *words: str, timeout: float = READY_SECONDS) -> str:
        """What kubectl prints.

        Raises:
            SetupProblem: it failed; with the last line it said.
        """
        command: list[str | Path] = [self.tools.kubectl, "--kubeconfig", self.kubeconfig, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise SetupProblem(f"kubectl {words[0]} failed on {self.name}: {said[-1]}", f"KUBECONFIG={self.kubeconfig}")
        return done.stdout

    def _wake(self, there: Sequence[str]) -> None:
        """Start nodes that an engine's restart left stopped."""
        words = ["ps", "--all", "--filter", f"label={NODE_LABEL}={self.name}", "--filter", "status=exited"]
        stopped = self.engine.run(*words, "--format", "{{.Names}}").split()
        if stopped:
            self.engine.run("start", *stopped)

    def _export_kubeconfig(self) -> None:
        words = ["export", "kubeconfig", "--name", self.name, "--kubeconfig", str(self.kubeconfig)]
        done = subprocess.run([self._wrapper(), *words], capture_output=True, text=True)
        if done.returncode:
            raise SetupProblem(f"kind gives no kubeconfig of {self.name}: {self._said()}", f"read {self.log}")

    @contextlib.contextmanager
    def _kind_cluster(self, image: str | None) -> Iterator[Any]:
        """pytest-kind's handle. It makes a folder where we are when it is created, so we are in ours."""
        try:
            from pytest_kind import KindCluster
        except ImportError as error:
            raise SetupProblem("pytest-kind is not installed", 'pip install "inferencebox[kind]"') from error
        self.home.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(self.home):
            handle = KindCluster(
                self.name,
                kubeconfig=self.kubeconfig,
                image=image,
                kind_path=self._wrapper(),
                kubectl_path=self.tools.kubectl,
            )
        yield handle

    def _wrapper(self) -> Path:
        """The pinned kind as pytest-kind is to call it."""
        path = self.home / "kind"
        words = {"path": self.engine.docker.parent, "kind": self.tools.kind, "log": self.log}
        path.write_text(WRAPPER.format(**{name: shlex.quote(str(word)) for name, word in words.items()}))
        path.chmod(0o755)
        return path

    def _said(self) -> str:
        """What kind said about its failure: its first line that speaks of an error."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no message")

    def _wait(self) -> None:
        """Until nodes and the cluster's own parts are ready, and each node knows the way to the others' pods."""
        limit = f"--timeout={READY_SECONDS}s"
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", limit)
        for namespace in NAMESPACES:
            found = self.kubectl("get", "deployments,daemonsets", "--namespace", namespace, "--output=name")
            for workload in found.split():
                self.kubectl("rollout", "status", workload, "--namespace", namespace, limit, timeout=READY_SECONDS + 10)
        self._await_routes()

    def _await_routes(self) -> None:
        subnets = {
            item["metadata"]["name"]: item["spec"]["podCIDR"]
            for item in json.loads(self.kubectl("get", "nodes", "--output=json"))["items"]
        }
        for name in subnets:
            others = {subnet for other, subnet in subnets.items() if other != name}
            routes = poll(partial(self._routes, name), ROUTE_SECONDS, POLL_SECONDS, until=others.issubset)
            if missing := others - routes:
                raise SetupProblem(
                    f"{name} has no route to {', '.join(sorted(missing))}",
                    f"see the logs of the network's pods in kube-system (KUBECONFIG={self.kubeconfig})",
                )

    def _routes(self, node: str) -> set[str]:
        return set(self.engine.run("exec", node, "ip", "route", "show").split())

    def _loaded(self, where: str) -> set[str]:
        listed = ["exec", where, "sh", "-c", f"mkdir -p {LOADED}; ls {LOADED}"]
        return set(self.engine.run(*listed).split())

    def _load(self, where: str, archive: Path, key: str) -> None:
        import_ = shlex.join(["ctr", *node.IMPORT])
        script = f'[ -e "$0" ] && exec {import_} "$0"; exec {import_} -'
        with archive.open("rb") as content:
            words: list[str | Path] = [self.engine.docker, "exec", "--interactive", where, "sh", "-c", script]
            done = subprocess.run([*words, _in_node(archive)], stdin=content, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise SetupProblem(f"{archive} cannot be loaded into {where}: {said[-1]}", "make room on this disk")
        self.engine.run("exec", where, "touch", f"{LOADED}/{key}")


def name_of(instance: str) -> str:
    """The cluster of an instance; the usual one has the platform's own name."""
    return NAME if instance == DEFAULT_INSTANCE else f"{NAME}-{instance}"


def handle(
    instance: str,
    engine: Engine,
    release: Release,
    progress: Progress | None = None,
    options: KindOptions | None = None,
) -> Cluster:
    """The cluster of an instance, whether it is there or not. A name given once is remembered with the instance."""
    asked, home = options or KindOptions(), state_dir(instance) / "kind"
    missing = [name for name, given in (("kind", asked.kind), ("kubectl", asked.kubectl)) if given is None]
    there = programs.provide(release, missing, progress, use_path=False) if missing else {}
    tools = Tools(asked.kind or there["kind"], asked.kubectl or there["kubectl"])
    return Cluster(asked.cluster_name or _remembered(home) or name_of(instance), home, engine, tools)


def _remembered(home: Path) -> str:
    try:
        return (home / NAME_FILE).read_text()
    except OSError:
        return ""


def ensure_node_image(engine: Engine, release: Release, progress: Progress | None = None) -> str:
    """Have the node image in the engine; its name there."""
    reference = release.images[node.IMAGE].reference
    for key in node.keys(release):
        if engine.run("images", "--quiet", _tagged(reference, key)):
            return _tagged(reference, key)
    archive = node.provide(release, progress)
    named = _tagged(reference, _key(archive))
    engine.run("load", "--input", archive)
    engine.run("tag", reference, named)
    return named


def _tagged(reference: str, key: str) -> str:
    """The node image's name in the engine says what it was made from, so that another one is another name."""
    return f"{reference}-{key}"


def for_few_cores() -> dict[str, str]:
    """What nodes on few cores are told before anything runs on them: files, by their place in a node."""
    units = {f"/etc/systemd/system/{unit}.service.d/20-few-cores.conf" for unit in GO_UNITS}
    told = "[Service]\nEnvironment={name}={value}\n".format(**GO_SETTING)
    patches = {
        f"{PATCHES}/{part}+strategic.yaml": {"spec": {"containers": [{"name": part, "env": [GO_SETTING]}]}}
        for part in CONTROL_PLANE
    }
    return dict.fromkeys(units, told) | {place: yaml.safe_dump(patch) for place, patch in patches.items()}


def configuration(nodes: int, ports: Sequence[int], audit_policy: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """kind's configuration: ports of this machine are left for kind to choose, nodes are spread over zones.

    Args:
        audit_policy: file of this machine that says what the API server notes of what is done.
        files: of this machine that each node has, by their place there.
    """
    roles = ["control-plane", *["worker"] * (nodes - 1)]
    mappings = [{"containerPort": port, "hostPort": 0, "listenAddress": PORT_HOST} for port in ports]
    described: list[dict[str, Any]] = [
        {"role": role, "labels": {"topology.kubernetes.io/region": REGION, "topology.kubernetes.io/zone": zone}}
        for role, zone in zip(roles, _zones(nodes), strict=True)
    ]
    inside = f"{AUDIT_FOLDER}/{AUDIT_POLICY}"
    patched = [{"kind": "InitConfiguration", "patches": {"directory": PATCHES}}] if files else []
    described[0] |= {
        "extraPortMappings": mappings,
        "extraMounts": [{"hostPath": str(audit_policy), "containerPath": inside, "readOnly": True}],
        "kubeadmConfigPatches": [yaml.safe_dump(told) for told in (_kubeadm(inside), *patched)],
    }
    given = {**files, STORE: _store()}
    mounts = [{"hostPath": str(here), "containerPath": place, "readOnly": True} for place, here in given.items()]
    for each in described:
        each["extraMounts"] = [*each.get("extraMounts", []), *mounts]
    subnets = {"podSubnet": node.recipe().pod_subnet, "serviceSubnet": node.recipe().service_subnet}
    return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "networking": subnets, "nodes": described}


def _kubeadm(policy: str) -> dict[str, Any]:
    """What kubeadm is told: the API server writes its audit where the log collector reads it (SEC-33), and nobody
    is to be elected on the only control plane."""
    log = policies.kubernetes_audit_log()
    words = {"audit-policy-file": policy, "audit-log-path": log, **AUDIT_KEPT}
    volumes = [
        {"name": name, "hostPath": folder, "mountPath": folder, "readOnly": read_only, "pathType": "DirectoryOrCreate"}
        for name, folder, read_only in (
            ("audit-policy", str(Path(policy).parent), True),
            ("audit-log", str(Path(log).parent), False),
        )
    ]
    alone = {"extraArgs": {"leader-elect": "false"}}
    return {
        "kind": "ClusterConfiguration",
        "apiServer": {"extraArgs": words, "extraVolumes": volumes},
        "controllerManager": alone,
        "scheduler": alone,
    }


def _zones(nodes: int) -> list[str]:
    return [ZONES[number % len(ZONES)] for number in range(nodes)]


def _store() -> Path:
    return Store(cache_dir()).entries


def _in_node(archive: Path) -> str:
    """Where a node finds an archive without being sent it, if it does."""
    return f"{STORE}/{archive.relative_to(_store())}" if archive.is_relative_to(_store()) else "-"


def _key(archive: Path) -> str:
    """What tells one archive from another: its place in the cache, or its content if it comes from elsewhere."""
    key = archive.parent.parent.name
    return key if re.fullmatch(r"[0-9a-f]{20}", key) else digest_of(archive)[:20]
