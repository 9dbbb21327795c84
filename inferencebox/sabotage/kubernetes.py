"""Inside a platform on a cluster: its Deployments and pods."""

import fnmatch
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from inferencebox.polling import poll
from inferencebox.probes.kubernetes import is_ready
from inferencebox.providers.kubernetes.objects import selector_of, workload
from inferencebox.providers.kubernetes.platform import MONITORING, TIER_1, KubernetesPlatform

from . import sidecars
from .effects import NoEffect
from .means import Undo, replaced
from .remembered import Memory
from .tampering import listed

READY_SECONDS = 90.0
CONFIG_MAPS = {
    "telemetry/rules/": "prometheus-rules",
    "telemetry/alertmanager.yaml": "alertmanager",
    "collected-logs/loki.yaml": "loki",
    "collected-logs/log-collector.yaml": "log-collector",
}
"""File of `local`'s state, or all in a folder -> the ConfigMap that has it in a cluster."""
CONFIGURATION_DIGEST = "alertmanager_config_hash"
TOUCHED = "inference-in-a-box/touched"
ENVOY_ADMIN, ISTIOD_DEBUG, LIMITER_DEBUG = 19000, 15014, 6070
ISTIOD = {"app": "istiod"}
LIMITER = {"app.kubernetes.io/name": "envoy-ratelimit"}
SECONDS = 10.0


@dataclass(frozen=True)
class KubernetesMeans:
    platform: KubernetesPlatform

    def with_settings(self, components: str, settings: Mapping[str, str], memory: Memory) -> Undo:
        if components.endswith(sidecars.SUFFIX):
            return sidecars.with_settings(self.platform.kube, components, settings, memory)
        found = [
            deployment
            for deployment in listed(self.platform.kube, "deployment")
            if any(fnmatch.fnmatch(name, components) for name in _names(deployment))
        ]
        if not found:
            raise NoEffect(f"no Deployment of the cluster is {components}")

        def run(with_these: Mapping[str, str]) -> None:
            for deployment in found:
                memory.note("changed", deployment)
                self._run(deployment, with_these)

        run(settings)
        return lambda: run({})

    def _run(self, deployment: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        """As it was, but for these settings; returns when its pods are ready."""
        name, namespace = deployment["metadata"]["name"], deployment["metadata"]["namespace"]
        containers = [dict(each) for each in deployment["spec"]["template"]["spec"]["containers"]]
        for container in containers:
            kept = [each for each in container.get("env") or [] if each["name"] not in settings]
            container["env"] = [*kept, *({"name": key, "value": value} for key, value in settings.items())]
        change = [{"op": "replace", "path": "/spec/template/spec/containers", "value": containers}]
        self.platform.kube.patch("deployment", name, namespace, change).require()
        self.platform.await_part("Deployment", name, namespace, READY_SECONDS)

    def freeze(self, component: str) -> Undo:
        """Without its pod: what it steers are other pods."""
        self.platform.stop(component)
        return lambda: self.platform.start(component)

    def forgetful(self, component: str, folder: str) -> Undo:
        raise NoEffect(f"what {component} keeps in a cluster is not reached yet")

    def rewritten(self, name: str, replace: Mapping[str, str], component: str, anew: bool = False) -> Undo:
        where = next((there for start, there in CONFIG_MAPS.items() if name.startswith(start)), None)
        if where is None:
            raise NoEffect(f"{name} is a file of the local platform")
        file = name.rpartition("/")[2]
        before = self.platform.kube.get("configmap", where, MONITORING).require()["data"][file]

        def write(content: str) -> bool:
            change = {"data": {file: content}}
            self.platform.kube.patch("configmap", where, MONITORING, change).require()
            if not anew:
                return self._told_to_read(component)
            self.platform.stop(component)
            self.platform.start(component)
            return True

        def undo() -> None:
            if not write(before):
                raise NoEffect(f"{component} did not take its {file} as it was")

        if not write(replaced(before, replace, name)):
            write(before)
            raise NoEffect(f"{component} did not take its changed {file}")
        return undo

    def _told_to_read(self, component: str) -> bool:
        seen = self._told(component)
        self._touch(component)
        return poll(lambda: self._reloaded(component) != seen, READY_SECONDS, every=1.0)

    def _touch(self, component: str) -> None:
        """A pod with a new annotation is looked at by its kubelet at once, which brings its files up to date."""
        for pod in self.platform.kube.list("pods", MONITORING, f"app={component}").items:
            note = {"metadata": {"annotations": {TOUCHED: uuid.uuid4().hex}}}
            self.platform.kube.patch("pod", pod["metadata"]["name"], MONITORING, note).require()

    def _reloaded(self, component: str) -> object:
        httpx.post(f"{self.platform.endpoint(component).url}/-/reload", timeout=SECONDS, trust_env=False)
        return self._told(component)

    def _told(self, component: str) -> object:
        """What differs when a component has read something else: Prometheus' rules, a digest of Alertmanager's file."""
        if component == "alertmanager":
            lines = self._asked(component, "/metrics").text.splitlines()
            return [line for line in lines if line.startswith(CONFIGURATION_DIGEST)]
        groups = self._asked(component, "/api/v1/rules").json()["data"]["groups"]
        return [(rule["name"], rule["query"]) for group in groups for rule in group["rules"]]

    def _asked(self, component: str, path: str) -> httpx.Response:
        url = self.platform.endpoint(component).url + path
        return httpx.get(url, timeout=SECONDS, trust_env=False).raise_for_status()

    def tier_1(self, path: str) -> str:
        return self._inside("envoy-gateway-system", TIER_1, ENVOY_ADMIN, path)

    def limiter(self, path: str) -> str:
        return self._inside("envoy-gateway-system", LIMITER, LIMITER_DEBUG, path)

    def istiod(self, path: str) -> str:
        return self._inside("istio-system", ISTIOD, ISTIOD_DEBUG, path)

    def _inside(self, namespace: str, labels: Mapping[str, str], port: int, path: str) -> str:
        for pod in self.platform.kube.list("pods", namespace, selector_of(labels)).items:
            if not is_ready(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            try:
                url = self.platform.forward(workload(pod), port).url + path
                return httpx.get(url, timeout=SECONDS, trust_env=False).text
            except httpx.HTTPError:
                return ""
        return ""


def _names(deployment: Mapping[str, Any]) -> tuple[str, str]:
    """Both ways in which a component may be called."""
    metadata = deployment["metadata"]
    return str(metadata["name"]), f"{metadata['namespace']}.{metadata['name']}"
