"""Tier 1 of the box: Envoy Gateway (Kubernetes resources, host infrastructure), Envoy AI Gateway, rate limit
service, Redis."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from inferencebox.errors import SetupProblem
from inferencebox.paths import manifests_dir
from inferencebox.pki import Authority

from .addresses import PODS
from .supervisor import Program

CONTROLLER_HOST = "ai-gateway-controller.envoy-ai-gateway-system.svc.cluster.local"
RATELIMIT_PORT = 8081
REDIS_PORT = 6379
CERTIFICATES = ("envoy-gateway", "envoy", "envoy-rate-limit")


@dataclass(frozen=True)
class Gateways:
    """Files and programs of tier 1.

    Args:
        home: folder of its own below the instance's state.
        binaries: program name -> path (envoy-gateway, ai-gateway-controller, envoy, ratelimit, redis-server).
        envoy_version: of the Envoy binary, ``1.38.3``.
        kubeconfig: the administrator's client configuration inside the box.
    """

    home: Path
    certs: Path
    binaries: Mapping[str, Path]
    envoy_version: str
    kubeconfig: Path

    def prepare(self) -> None:
        """Envoy Gateway's certificates by its own tool, its configuration, and the Envoy it will start."""
        self.home.mkdir(parents=True, exist_ok=True)
        tool = [str(self.binaries["envoy-gateway"]), "certgen", "--local", "--config-home", str(self.home / "config")]
        done = subprocess.run(
            tool, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(self.home)}
        )
        if done.returncode != 0:
            raise SetupProblem(
                f"envoy-gateway certgen failed: {done.stderr.strip()[-200:]}", "run `ibox build --again`"
            )
        shutil.copytree(self._certificates("envoy-gateway"), self.certs, dirs_exist_ok=True)
        envoy = self.home / "data" / "envoy-versions" / self.envoy_version / "bin" / "envoy"
        envoy.parent.mkdir(parents=True, exist_ok=True)
        envoy.unlink(missing_ok=True)
        envoy.symlink_to(self.binaries["envoy"])
        template = Template((manifests_dir() / "providers" / "local" / "envoy-gateway.yaml").read_text())
        (self.home / "envoy-gateway.yaml").write_text(template.substitute(home=self.home))
        authority = Authority.create("inferencebox webhooks")
        authority.issue("ai-gateway-controller", hosts=[CONTROLLER_HOST, PODS["ai-gateway-controller"]]).write(
            self.home / "webhook"
        )
        (self.home / "webhook" / "ca.crt").write_bytes(authority.pair.certificate)

    @property
    def webhook_authority(self) -> bytes:
        return (self.home / "webhook" / "ca.crt").read_bytes()

    def secrets(self) -> dict[str, dict[str, bytes]]:
        """The Secrets that ``certgen`` would have made in a cluster: name -> entries."""
        found = {name: _files(self._certificates(name)) for name in CERTIFICATES}
        found["envoy-oidc-hmac"] = _files(self._certificates("envoy-oidc-hmac"))
        return found

    def programs(self) -> list[Program]:
        return [self._redis(), self._ratelimit(), self._controller(), self._envoy_gateway()]

    def _certificates(self, name: str) -> Path:
        return self.home / "config" / "certs" / name

    def _envoy_gateway(self) -> Program:
        env = {
            "KUBECONFIG": str(self.kubeconfig),
            "ENVOY_VERSION": self.envoy_version,
            "ENVOY_GATEWAY_NAMESPACE": "envoy-gateway-system",
            "HOME": str(self.home),
        }
        command = [
            str(self.binaries["envoy-gateway"]),
            "server",
            "--config-path",
            str(self.home / "envoy-gateway.yaml"),
        ]
        return Program("envoy-gateway", command, pod="envoy-gateway", env=env, cwd=self.home)

    def _controller(self) -> Program:
        env = {"KUBECONFIG": str(self.kubeconfig), "POD_NAMESPACE": "envoy-ai-gateway-system"}
        command = [
            str(self.binaries["ai-gateway-controller"]),
            "-enableLeaderElection=false",
            # At info it says each cluster and route that it completes, each time Envoy's configuration is made.
            "-logLevel=warn",
            f"-tlsCertDir={self.home / 'webhook'}",
        ]
        return Program("ai-gateway-controller", command, pod="ai-gateway-controller", env=env, cwd=self.home)

    def _redis(self) -> Program:
        flags = [
            "--bind",
            "0.0.0.0",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self.home),
        ]
        return Program("redis", [str(self.binaries["redis-server"]), *flags], pod="redis")

    def _ratelimit(self) -> Program:
        certificates = self._certificates("envoy-rate-limit")
        tls = {
            "CERT": str(certificates / "tls.crt"),
            "KEY": str(certificates / "tls.key"),
        }
        authority = str(certificates / "ca.crt")
        env = {
            "LOG_LEVEL": "info",
            "DISABLE_STATS": "true",
            "GRPC_PORT": str(RATELIMIT_PORT),
            "REDIS_SOCKET_TYPE": "tcp",
            "REDIS_URL": f"{PODS['redis']}:{REDIS_PORT}",
            "BACKEND_TYPE": "redis",
            "RUNTIME_ROOT": str(self.home),
            "RUNTIME_SUBDIRECTORY": "ratelimit",
            "FORCE_START_WITHOUT_INITIAL_CONFIG": "true",
            "CONFIG_TYPE": "GRPC_XDS_SOTW",
            "CONFIG_GRPC_XDS_SERVER_URL": f"{PODS['envoy-gateway']}:18001",
            "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
            "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true",
            "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": tls["CERT"],
            "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": tls["KEY"],
            "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": authority,
            "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "envoy-gateway",
            "GRPC_SERVER_USE_TLS": "true",
            "GRPC_SERVER_TLS_CERT": tls["CERT"],
            "GRPC_SERVER_TLS_KEY": tls["KEY"],
            "GRPC_SERVER_TLS_CA_CERT": authority,
        }
        return Program("ratelimit", [str(self.binaries["ratelimit"])], pod="ratelimit", env=env, cwd=self.home)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
