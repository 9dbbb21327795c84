"""The headless Kubernetes of the box: etcd, API server, controller manager, scheduler. No kubelet, so no pod ever
runs."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from inferencebox.paths import manifests_dir
from inferencebox.pki import Authority, Certificate

from .addresses import KUBERNETES_PORT, NODE
from .network import SERVICE_RANGE
from .supervisor import Program

# nodelifecycle would taint nodes that have no kubelet; the deployment controllers would wait for pods that never run
CONTROLLERS = (
    "namespace-controller,garbage-collector-controller,endpointslice-controller,serviceaccount-controller,"
    "root-ca-certificate-publisher-controller,resourcequota-controller,"
    "clusterrole-aggregation-controller,ttl-after-finished-controller,"
    "validatingadmissionpolicy-status-controller,disruption-controller"
)
HOSTS = ("kubernetes", "kubernetes.default.svc", "localhost", "127.0.0.1", NODE, "10.96.0.1")


class ControlPlane:
    """Files and programs of the API.

    Args:
        home: folder of its own below the instance's state.
        binaries: program name -> path (etcd, kube-apiserver, ...).
        audit: file for who changed what.
    """

    def __init__(self, home: Path, binaries: Mapping[str, Path], audit: Path) -> None:
        self._home = home
        self._audit = audit
        self._binaries = binaries
        self.etcd_data = home / "etcd"
        self.kubeconfig = home / "kubeconfig"

    def prepare(self) -> None:
        """Keys, certificates and client configurations, new for each platform."""
        self._home.mkdir(parents=True, exist_ok=True)
        authority = Authority.create("inferencebox kubernetes")
        authority.pair.write(self._home, "ca.crt", "ca.key")
        authority.issue("kube-apiserver", hosts=HOSTS).write(self._home, "apiserver.crt", "apiserver.key")
        Authority.create("service accounts").pair.write(self._home, "sa.crt", "sa.key")
        clients = {
            "kubeconfig": ("admin", "system:masters"),
            "controller-manager.kubeconfig": ("system:kube-controller-manager", ""),
            "scheduler.kubeconfig": ("system:kube-scheduler", ""),
        }
        for file, (user, group) in clients.items():
            client = authority.issue(user, organization=group)
            self._write_kubeconfig(file, client, f"https://{NODE}:{KUBERNETES_PORT}")

    def outside_kubeconfig(self, target: Path, port: int) -> None:
        """The administrator's client configuration for people and tests outside the box."""
        inside = yaml.safe_load(self.kubeconfig.read_text())
        inside["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        target.touch(mode=0o600)
        target.write_text(yaml.safe_dump(inside))

    @property
    def version(self) -> str:
        """Names the API server and etcd that this is made of: where the content-addressed cache keeps them."""
        return f"{self._binaries['kube-apiserver']} {self._binaries['etcd']}"

    def programs(self) -> list[Program]:
        return [self._etcd(), self._api_server(), self._controller_manager(), self._scheduler()]

    def _etcd(self) -> Program:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        flags = {
            "data-dir": self.etcd_data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }
        # the platform is as disposable as its disk: no need to wait for the disk on each write
        return Program("etcd", [str(self._binaries["etcd"]), "--unsafe-no-fsync", *_flags(flags)])

    def _api_server(self) -> Program:
        file = self._home
        flags = {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": "0.0.0.0",
            "advertise-address": NODE,
            "secure-port": KUBERNETES_PORT,
            "tls-cert-file": file / "apiserver.crt",
            "tls-private-key-file": file / "apiserver.key",
            "client-ca-file": file / "ca.crt",
            "service-cluster-ip-range": SERVICE_RANGE,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": file / "sa.key",
            "service-account-signing-key-file": file / "sa.key",
            "authorization-mode": "RBAC",
            "endpoint-reconciler-type": "none",
            "audit-policy-file": manifests_dir() / "observability" / "kubernetes-audit.yaml",
            "audit-log-path": self._audit,
        }
        return Program("kube-apiserver", [str(self._binaries["kube-apiserver"]), *_flags(flags)], stop_seconds=10)

    def _controller_manager(self) -> Program:
        flags = {
            "kubeconfig": self._home / "controller-manager.kubeconfig",
            "controllers": CONTROLLERS,
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
            "use-service-account-credentials": "true",
            "root-ca-file": self._home / "ca.crt",
            "service-account-private-key-file": self._home / "sa.key",
            "concurrent-resource-quota-syncs": 10,
            "resource-quota-sync-period": "10s",
        }
        return Program("kube-controller-manager", [str(self._binaries["kube-controller-manager"]), *_flags(flags)])

    def _scheduler(self) -> Program:
        flags = {
            "kubeconfig": self._home / "scheduler.kubeconfig",
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
        }
        return Program("kube-scheduler", [str(self._binaries["kube-scheduler"]), *_flags(flags)])

    def _write_kubeconfig(self, file: str, client: Certificate, server: str) -> None:
        def data(pem: bytes) -> str:
            return base64.b64encode(pem).decode()

        cluster = {"server": server, "certificate-authority-data": data((self._home / "ca.crt").read_bytes())}
        user = {"client-certificate-data": data(client.certificate), "client-key-data": data(client.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "inferencebox",
            "clusters": [{"name": "inferencebox", "cluster": cluster}],
            "users": [{"name": "inferencebox", "user": user}],
            "contexts": [{"name": "inferencebox", "context": {"cluster": "inferencebox", "user": "inferencebox"}}],
        }
        path = self._home / file
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))


class Kubectl:
    """The real kubectl against one client configuration."""

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self._command = [str(binary), "--kubeconfig", str(kubeconfig)]

    def run(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run([*self._command, *args], input=stdin, text=True, capture_output=True, check=False)
        if check and done.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(args[:4])}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def apply(self, documents: list[dict[str, object]]) -> None:
        """Server-side apply; conflicts are ours to win.

        Without validation of fields: for it kubectl asks for the API's OpenAPI documents, which cost the API server
        seconds of work to make. That our manifests have no unknown field is a scenario's business (OPS-11).
        """
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.run("apply", "--server-side", "--force-conflicts", "--validate=ignore", "-f", "-", stdin=text)


class KubectlFailed(RuntimeError):
    """kubectl refused or could not do what was asked; the text is its own."""


def _flags(flags: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]
