"""Runs in the cluster, beside Prometheus: writes down which pods there are to scrape, as they come and go.

Debian's Prometheus is built without discovery for Kubernetes; its files (`file_sd_configs`) are the same for every
build. Needs nothing but Python's own library.
"""

import json
import os
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MODEL_PORT, PROXY_PORT, TIER_1_PORT, ISTIOD_PORT = 8080, 15090, 19001, 15014
KNATIVE_PORT, KUBELET_PORT = 9090, 10250
SERVED = "serving.kserve.io/inferenceservice"
REPLICA = "inference-in-a-box/workload"
TIER_1 = "gateway.envoyproxy.io/owning-gateway-name"
KNATIVE = ("autoscaler", "activator")
LOG_PORTS = {"loki": 3100, "log-collector": 8889}
WATCH_SECONDS = 300
PAUSE = 1.0
Pod = Mapping[str, Any]
Target = dict[str, Any]


def targets(pods: list[Pod]) -> dict[str, list[Target]]:
    """File -> what there is to scrape, with the labels that every provider gives (observability/prometheus.yaml).

    A model is what KServe serves, or a replica of the same program that a scenario brought.
    """
    found: dict[str, list[Target]] = {name: [] for name in ("models", "proxies", "tier-1", "istiod", "knative", "logs")}
    nodes: dict[str, str] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        nodes[pod["spec"].get("nodeName", "")] = pod["status"].get("hostIP", "")
        ports = _ports(pod)
        if MODEL_PORT in ports and (SERVED in labels or labels.get(REPLICA) == "model"):
            found["models"].append(_target(pod, MODEL_PORT))
        if PROXY_PORT in ports:
            found["proxies"].append(_target(pod, PROXY_PORT))
        if TIER_1_PORT in ports and TIER_1 in labels:
            found["tier-1"].append(_plain(pod, TIER_1_PORT))
        if ISTIOD_PORT in ports and labels.get("app") == "istiod":
            found["istiod"].append(_plain(pod, ISTIOD_PORT))
        if labels.get("app") in KNATIVE and KNATIVE_PORT in ports:
            found["knative"].append(_target(pod, KNATIVE_PORT))
        if (port := LOG_PORTS.get(labels.get("app", ""))) in ports:
            found["logs"].append(_target(pod, port))
    kubelets = [{"targets": [f"{at}:{KUBELET_PORT}"], "labels": {"node": node}} for node, at in sorted(nodes.items())]
    return {**found, "kubelet": kubelets}


def is_running(pod: Pod) -> bool:
    status = pod.get("status", {})
    return status.get("phase") == "Running" and bool(status.get("podIP"))


def _ports(pod: Pod) -> set[int]:
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    return {port["containerPort"] for container in containers for port in container.get("ports") or []}


def _plain(pod: Pod, port: int) -> Target:
    return {"targets": [f"{pod['status']['podIP']}:{port}"]}


def _target(pod: Pod, port: int) -> Target:
    metadata = pod["metadata"]
    own, namespace = metadata.get("labels") or {}, metadata["namespace"]
    labels = {"namespace": namespace, "pod": metadata["name"], "app": own.get("app", metadata["name"])}
    if namespace.startswith("tenant-"):
        labels |= {"tenant": namespace, "model": labels["app"], "version": own.get("version", "")}
    return {**_plain(pod, port), "labels": labels}


def write(folder: Path, pods: list[Pod]) -> None:
    for name, found in targets(pods).items():
        file = folder / f"{name}.json"
        text = json.dumps(found)
        if not file.exists() or file.read_text() != text:
            partial = file.with_suffix(".new")
            partial.write_text(text)
            partial.replace(file)


class Api:
    """The API server, as the pod's own account sees it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def pods(self) -> tuple[list[Pod], str]:
        """All pods, and the moment at which they were so."""
        with self._open("") as reply:
            found = json.load(reply)
        return found["items"], found["metadata"]["resourceVersion"]

    def changes(self, since: str) -> Iterator[tuple[str, Pod]]:
        """What happened to pods since that moment, and happens now; until the watch ends."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": str(WATCH_SECONDS)}
        with self._open("?" + urllib.parse.urlencode(query)) as reply:
            for line in reply:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]

    def _open(self, query: str) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
        request = urllib.request.Request(f"{self._server}/api/v1/pods{query}", headers=headers)
        reply: HTTPResponse = urllib.request.urlopen(request, context=self._trusted, timeout=WATCH_SECONDS + 30)
        return reply


def follow(api: Api, folder: Path) -> None:
    """All pods, and then each change, for as long as one watch lasts."""
    found, since = api.pods()
    pods = {pod["metadata"]["uid"]: pod for pod in found if is_running(pod)}
    write(folder, list(pods.values()))
    for what, pod in api.changes(since):
        if what == "DELETED" or not is_running(pod):
            pods.pop(pod["metadata"]["uid"], None)
        else:
            pods[pod["metadata"]["uid"]] = pod
        write(folder, list(pods.values()))


def main(folder: Path) -> None:
    """Until ended."""
    api = Api(f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}")
    while True:
        try:
            follow(api, folder)
        except (OSError, ValueError) as problem:
            print(f"{type(problem).__name__}: {problem}", file=sys.stderr, flush=True)
        time.sleep(PAUSE)  # a watch that ends at once must not become a busy loop


if __name__ == "__main__":
    main(Path(sys.argv[1]))
