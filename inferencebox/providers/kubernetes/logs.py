"""Follows what the platform's containers write, into one file each: `Platform.logs` of a cluster."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from inferencebox.providers.kubernetes.node_logs import NodeLogs
from inferencebox.providers.kubernetes.streams import ApiServer

OTHERS = {"kube-system", "kube-node-lease", "kube-public", "local-path-storage"}
TIER_1 = "gateway.envoyproxy.io/owning-gateway-name"
PAUSE = 1.0


class Follower:
    """Follows every container of every pod that is not the cluster's own.

    Args:
        kubeconfig: of the cluster.
        folder: where the files are; `<namespace>.<pod>.<container>.log`, and `tier-1-access.<pod>.log`.
        nodes: the nodes' own files, where they can be read; else the API server is asked.
    """

    def __init__(self, kubeconfig: Path, folder: Path, nodes: NodeLogs | None = None) -> None:
        self._nodes = nodes
        api = ApiServer.of(kubeconfig)
        self._folder = folder
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(
            base_url=api.url, verify=api.tls, headers=api.headers, timeout=httpx.Timeout(15, read=None), limits=limits,
            trust_env=False,
        )  # fmt: skip
        self._followed: dict[str, asyncio.Task[None]] = {}

    async def follow(self) -> None:
        """Until cancelled."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                async with self._client.stream("GET", "/api/v1/pods", params={"watch": "true"}) as reply:
                    async for line in reply.aiter_lines():
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self._notice(event["object"])
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            await asyncio.sleep(PAUSE)

    def _notice(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        if metadata["namespace"] in OTHERS:
            return
        status = pod.get("status", {})
        for each in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            run = each.get("containerID", "")
            if run and run not in self._followed:
                file = self._folder / f"{_name(metadata, each['name'])}.log"
                self._followed[run] = asyncio.create_task(self._copy(pod, each, file))

    async def _copy(self, pod: dict[str, Any], container: dict[str, Any], file: Path) -> None:
        if self._nodes is None or not await self._nodes.copy(pod, container, file):
            await self._ask(pod["metadata"]["namespace"], pod["metadata"]["name"], container["name"], file)

    async def _ask(self, namespace: str, pod: str, container: str, file: Path) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        params = {"container": container, "follow": "true"}
        try:
            async with self._client.stream("GET", path, params=params) as reply:
                if reply.status_code != 200:
                    return
                with file.open("ab", buffering=0) as log:
                    async for chunk in reply.aiter_bytes():
                        log.write(chunk)
        except httpx.HTTPError:
            return


def _name(metadata: dict[str, Any], container: str) -> str:
    if TIER_1 in metadata.get("labels", {}) and container == "envoy":
        return f"tier-1-access.{metadata['name']}"
    return f"{metadata['namespace']}.{metadata['name']}.{container}"
