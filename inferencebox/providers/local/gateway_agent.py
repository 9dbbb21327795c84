"""Stands for the pod of the tier-1 Envoy: keeps the AI Gateway's filter configuration in a file and runs its
external processor.

In a cluster the AI Gateway's webhook adds the processor's container to Envoy's pod, and the kubelet mounts the
configuration Secret and runs the container. Here Envoy is a process, so this does those two things: it creates
the pod object,
lets the real webhook add the container, and runs what the webhook asked for, with the real processor. Envoy itself is
run again when it ends (`restart`).

Runs inside the box: ``python -m inferencebox.providers.local.gateway_agent KUBECONFIG GATEWAY NAMESPACE PROCESSOR
FOLDER``.
"""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from inferencebox.replacing import replace_file

from .restart import keep_envoy_running

SYSTEM = "envoy-gateway-system"
CONTAINER = "ai-gateway-extproc"
MOUNTED = "/etc/filter-config/filter-config.yaml"
RETRY_SECONDS = 0.5


def owner_labels(gateway: str, namespace: str) -> dict[str, str]:
    """The labels by which both controllers find what belongs to a Gateway."""
    return {
        "gateway.envoyproxy.io/owning-gateway-name": gateway,
        "gateway.envoyproxy.io/owning-gateway-namespace": namespace,
        "app.kubernetes.io/managed-by": "envoy-gateway",
        "app.kubernetes.io/component": "proxy",
        "app.kubernetes.io/name": "envoy",
    }


def pod(gateway: str, namespace: str) -> dict[str, Any]:
    """Envoy's pod. It carries a scheduling gate: there is no kubelet that could run it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"envoy-{namespace}-{gateway}",
            "namespace": SYSTEM,
            "labels": owner_labels(gateway, namespace),
        },
        "spec": {
            "schedulingGates": [{"name": "inferencebox.dev/runs-as-a-process"}],
            "containers": [{"name": "envoy", "image": "envoy"}],
        },
    }


class Agent:
    def __init__(self, kubeconfig: Path, gateway: str, namespace: str, processor: Path, folder: Path) -> None:
        self._client = _client(kubeconfig)
        self._gateway, self._namespace = gateway, namespace
        self._processor = processor
        self._file = folder / "filter-config.yaml"
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self._create_pod()  # the controller writes the Secret only for a Gateway that has a pod
        for secret in self._secrets():
            self._write(secret)
            if self._child is None:
                self._child = self._start()
            elif self._child.poll() is not None:
                raise SystemExit(f"{CONTAINER} ended with {self._child.returncode}")

    def end(self) -> None:
        """The processor sleeps for 15 s when asked to stop, keeping its port: it is not asked."""
        if self._child is not None:
            self._child.kill()

    def _secrets(self) -> Iterator[dict[str, Any]]:
        """The configuration Secret, as it is and at each change."""
        selector = {"fieldSelector": f"metadata.name={self._gateway}-{self._namespace}", "watch": "true"}
        while True:
            try:
                path = f"/api/v1/namespaces/{SYSTEM}/secrets"
                with self._client.stream("GET", path, params=selector, timeout=httpx.Timeout(10, read=5)) as stream:
                    for line in stream.iter_lines():
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED"):
                            yield event["object"]
            except (httpx.TransportError, ValueError):
                time.sleep(RETRY_SECONDS)  # an API server that is away must not make this a busy loop
            if self._child is not None and self._child.poll() is not None:
                raise SystemExit(f"{CONTAINER} ended with {self._child.returncode}")

    def _write(self, secret: dict[str, Any]) -> None:
        content = base64.b64decode(secret["data"]["filter-config.yaml"])
        replace_file(self._file, content)
        print("filter configuration", secret["metadata"]["resourceVersion"], flush=True)

    def _start(self) -> subprocess.Popen[bytes] | None:
        """The processor, as the webhook wants it; none while the webhook knows of no AI route."""
        container = self._injected()
        if container is None:
            return None
        arguments = [argument.replace(MOUNTED, str(self._file)) for argument in container.get("args", [])]
        environment = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        print("starting", self._processor, *arguments, flush=True)
        return subprocess.Popen([str(self._processor), *arguments], env={**os.environ, **environment})

    def _create_pod(self) -> dict[str, Any]:
        """The pod, made anew, as the admission webhooks left it."""
        wanted = pod(self._gateway, self._namespace)
        pods = f"/api/v1/namespaces/{SYSTEM}/pods"
        self._client.delete(f"{pods}/{wanted['metadata']['name']}", params={"gracePeriodSeconds": "0"})
        while (created := self._client.post(pods, json=wanted)).status_code != httpx.codes.CREATED:
            print("pod refused:", created.text, flush=True)
            time.sleep(RETRY_SECONDS)  # without a limit: the webhook may not be there yet
        return dict(created.json())

    def _injected(self) -> dict[str, Any] | None:
        spec = self._create_pod()["spec"]
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        return next((container for container in containers if container["name"] == CONTAINER), None)


def _client(kubeconfig: Path) -> httpx.Client:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    return httpx.Client(base_url=cluster["server"], verify=context, trust_env=False)


def main() -> None:
    kubeconfig, gateway, namespace, processor, folder = sys.argv[1:]
    agent = Agent(Path(kubeconfig), gateway, namespace, Path(processor), Path(folder))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=keep_envoy_running, daemon=True).start()
    try:
        agent.run()
    finally:
        agent.end()


if __name__ == "__main__":
    main()
