"""The mesh of the box: istiod against the headless API, and pilot-agent with Envoy beside each workload, VM style."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox.pki import Authority, Certificate
from inferencebox.platform import Workload
from inferencebox.policies import mesh_access_log, mesh_statistics

from .box import SHORT_STATE
from .supervisor import Program

TRUST_DOMAIN = "cluster.local"
CLUSTER_ID = "Kubernetes"
DISCOVERY = "istiod.istio-system.svc:15012"
AGENT_STATUS_PORT = 15020
ENVOY_ADMIN_PORT = 15000
MESH_CONFIG = {
    "trustDomain": TRUST_DOMAIN,
    "rootNamespace": "istio-system",
    "enableAutoMtls": True,
    "enablePrometheusMerge": False,
    "accessLogFile": "/dev/stdout",
    "accessLogEncoding": "JSON",
    "accessLogFormat": mesh_access_log(),
    # Istio's own telemetry filter is not in stock Envoy: no default metrics provider
    "defaultProviders": {},
    "extensionProviders": [
        {"name": "jaeger", "opentelemetry": {"service": "jaeger.monitoring.svc.cluster.local", "port": 4317}}
    ],
    "defaultConfig": {"discoveryAddress": DISCOVERY},
}
ISTIOD_ENV = {
    "PILOT_ENABLE_ALPN_FILTER": "false",  # istio.alpn is not in stock Envoy
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",  # nor is istio.metadata_exchange
    "PILOT_ENABLE_GATEWAY_API": "false",  # tier 2 is an Istio Gateway; Gateway API objects are tier 1's
    "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL": "5s",  # SEC-17: a rolled key must be known at both tiers within minutes
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "ENABLE_LEADER_ELECTION": "false",
    "POD_NAME": "istiod",
    "POD_NAMESPACE": "istio-system",
    "CLUSTER_ID": CLUSTER_ID,
    "REVISION": "default",
}


@dataclass(frozen=True)
class Mesh:
    """Files and programs of the mesh.

    Args:
        home: folder of its own below the instance's state.
        binaries: program name -> path (pilot-discovery, pilot-agent, envoy).
        bootstrap: Istio's Envoy bootstrap template.
        kubeconfig: the administrator's client configuration inside the box.
    """

    home: Path
    binaries: Mapping[str, Path]
    bootstrap: Path
    kubeconfig: Path

    def prepare(self) -> None:
        """A signing authority of this platform's own, and istiod's mesh configuration."""
        authority = Authority.create("inferencebox mesh").pair
        cacerts = self.home / "cacerts"
        authority.write(cacerts, "ca-cert.pem", "ca-key.pem")
        for name in ("root-cert.pem", "cert-chain.pem"):
            (cacerts / name).write_bytes(authority.certificate)
        (self.home / "istiod").mkdir(parents=True, exist_ok=True)
        (self.home / "mesh.json").write_text(json.dumps(MESH_CONFIG))

    @property
    def root_certificate(self) -> Path:
        return self.home / "cacerts" / "root-cert.pem"

    def issue_for(self, identity: str, hosts: tuple[str, ...] = ()) -> Certificate:
        """A certificate by the mesh's authority for someone without an agent (tier 1).

        Args:
            identity: ``ns/<namespace>/sa/<account>``.
        """
        return _adopt(self.home / "cacerts").issue(identity, hosts=hosts, uris=[f"spiffe://{TRUST_DOMAIN}/{identity}"])

    def istiod(self) -> Program:
        flags = [
            "--kubeconfig", str(self.kubeconfig),
            "--registries", "Kubernetes",
            "--meshConfig", str(self.home / "mesh.json"),
            "--domain", TRUST_DOMAIN,
            "--httpsAddr=",
            "--ctrlz_port", "0",
        ]  # fmt: skip
        env = {**ISTIOD_ENV, "ROOT_CA_DIR": str(self.home / "cacerts")}
        command = [str(self.binaries["pilot-discovery"]), "discovery", *flags]
        return Program("istiod", command, pod="istiod", env=env, cwd=self.home / "istiod")

    def sidecar(
        self,
        workload: Workload,
        token: str,
        *,
        router: bool = False,
        certificate_life: str = "24h",
        readiness: tuple[int, str] | None = None,
    ) -> Program:
        """The proxy of one workload (or the tier-2 gateway, ``router``); writes the files its agent expects.

        Args:
            token: Kubernetes token of the workload's service account for audience ``istio-ca``.
            certificate_life: life of its certificates as a Go duration (SEC-27).
            readiness: port and path at which its agent asks the workload every second whether it is ready.
        """
        pod = pod_name(workload)
        self._write_agent_files(self.home / "proxies" / pod, token)
        folder = SHORT_STATE / self.home.name / "proxies" / pod
        command = [
            str(self.binaries["pilot-agent"]), "proxy", "router" if router else "sidecar",
            "--domain", f"{workload.namespace}.svc.{TRUST_DOMAIN}",
            "--proxyLogLevel=warning",
        ]  # fmt: skip
        env = self._agent_env(workload, folder, certificate_life, readiness)
        return Program(f"{pod}.proxy", command, pod=pod, env=env, cwd=folder)

    def _write_agent_files(self, folder: Path, token: str) -> None:
        for name in ("var/run/secrets/istio", "var/run/secrets/tokens", "var/lib/istio/envoy", "etc/istio/proxy"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root_certificate, folder / "var/run/secrets/istio/root-cert.pem")
        shutil.copyfile(self.bootstrap, folder / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json")
        secret = folder / "var/run/secrets/tokens/istio-token"
        secret.touch(mode=0o600)
        secret.write_text(token)

    def _agent_env(
        self, workload: Workload, folder: Path, certificate_life: str, readiness: tuple[int, str] | None
    ) -> dict[str, str]:
        root = str(folder / "var/run/secrets/istio/root-cert.pem")
        config = {
            "binaryPath": str(self.binaries["envoy"]),
            "configPath": str(folder / "etc/istio/proxy"),
            "discoveryAddress": DISCOVERY,
            "statusPort": AGENT_STATUS_PORT,
            "proxyAdminPort": ENVOY_ADMIN_PORT,
            "concurrency": 1,
            "terminationDrainDuration": "1s",
            "proxyStatsMatcher": mesh_statistics(),
        }
        entry: dict[str, str] = {}
        if readiness:
            port, path = readiness
            ask = {"host": "127.0.0.1", "port": port, "path": path, "scheme": "HTTP"}
            config["readinessProbe"] = {"periodSeconds": 1, "failureThreshold": 1, "httpGet": ask}
            entry = {"ISTIO_META_WORKLOAD_ENTRY": workload.name}
        return {
            "POD_NAME": workload.name,
            "POD_NAMESPACE": workload.namespace,
            "SERVICE_ACCOUNT": workload.service_account,
            "INSTANCE_IP": workload.address,
            "TRUST_DOMAIN": TRUST_DOMAIN,
            "CA_ADDR": DISCOVERY,
            "CA_ROOT_CA": root,
            "XDS_ROOT_CA": root,
            "SECRET_TTL": certificate_life,
            "ECC_SIGNATURE_ALGORITHM": "ECDSA",
            "ISTIO_META_CLUSTER_ID": CLUSTER_ID,
            "ISTIO_META_INTERCEPTION_MODE": "REDIRECT" if workload.mesh else "NONE",
            "ISTIO_METAJSON_LABELS": json.dumps(_proxy_labels(workload)),
            "ISTIO_META_WORKLOAD_NAME": workload.app,
            "ISTIO_META_MESH_ID": TRUST_DOMAIN,
            "PROXY_CONFIG": json.dumps(config),
            **entry,
        }


def pod_name(workload: Workload) -> str:
    """Name of the workload's network namespace and, with a suffix, of its processes."""
    return f"{workload.namespace}.{workload.name}"


def _proxy_labels(workload: Workload) -> dict[str, str]:
    """What the proxy says of itself. Istio has no node to read its locality from: the label it keeps for that
    says it."""
    place = {"istio-locality": workload.locality.replace("/", ".")} if workload.locality else {}
    return {**workload.labels, **place}


def workload_entry(workload: Workload, readiness: bool = False) -> dict[str, object]:
    """What tells Istio where the workload is and who it is; with `readiness`, that its agent must call it healthy."""
    spec: dict[str, object] = {
        "address": workload.address,
        "labels": dict(workload.labels),
        "serviceAccount": workload.service_account,
    }
    if workload.locality:
        spec["locality"] = workload.locality
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": workload.name,
            "namespace": workload.namespace,
            "labels": dict(workload.labels),
            "annotations": {"proxy.istio.io/health-checks-enabled": "true"} if readiness else {},
        },
        "spec": spec,
    }


def _adopt(folder: Path) -> Authority:
    return Authority.load((folder / "ca-cert.pem").read_bytes(), (folder / "ca-key.pem").read_bytes())
