"""Sidecars of models that are InferenceServices, run with other settings.

What their pods are like is Knative's to say, which puts back what somebody changes of its Deployments. So the
InferenceService is told, and each change is another revision of it; Istio's injection reads the settings from the pod
(annotation `proxy.istio.io/config`, istio.io/latest/docs/reference/config/annotations).
"""

import fnmatch
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube, is_ready
from inferencebox.providers.kubernetes.objects import INFERENCE_SERVICE

from .effects import NoEffect
from .means import Undo
from .remembered import Memory, NotHealed
from .tampering import listed

KIND = "InferenceService.serving.kserve.io"
SUFFIX = ".proxy"
SETTINGS = "proxy.istio.io/config"
ROLLED_OUT_SECONDS = 240.0
"""A revision's first pod takes half a minute on a busy machine. One without traffic keeps its last pod for
60 s and then for 30 s (SPEC 1.6)."""


@dataclass(frozen=True)
class _Served:
    """One model."""

    kube: Kube
    namespace: str
    name: str
    before: str | None

    def tell(self, settings: str | None) -> None:
        change = {"metadata": {"annotations": {SETTINGS: settings}}}
        self.kube.patch(KIND, self.name, self.namespace, change).require()

    def has(self, settings: str) -> bool:
        """Whether a pod with these settings serves."""
        return any(is_ready(pod) and _settings(pod) == settings for pod in self._pods())

    def is_as_before(self) -> bool:
        pods = self._pods()
        return any(map(is_ready, pods)) and all(_settings(pod) == self.before for pod in pods)

    def _pods(self) -> list[Any]:
        found = self.kube.list("pods", self.namespace, f"{INFERENCE_SERVICE}={self.name}").items
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def with_settings(kube: Kube, components: str, settings: Mapping[str, str], memory: Memory) -> Undo:
    """Run sidecars (`namespace.model.proxy`, may contain `*`) with other environment variables.

    Raises:
        NoEffect: there are none, or no pod with these settings gets ready.
    """
    models = []
    for document in listed(kube, KIND):
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        if fnmatch.fnmatch(f"{namespace}.{name}{SUFFIX}", components):
            memory.note("changed", document)
            models.append(_Served(kube, namespace, name, _settings(document)))
    if not models:
        raise NoEffect(f"no InferenceService has the sidecar {components}")
    wanted = json.dumps({"proxyMetadata": dict(settings)})
    for model in models:
        model.tell(wanted)
    if not _soon(models, lambda model: model.has(wanted)):
        raise NoEffect(f"no pod with other settings got ready in {ROLLED_OUT_SECONDS:.0f} s")

    def undo() -> None:
        for model in models:
            model.tell(model.before)
        if not _soon(models, _Served.is_as_before):
            raise NotHealed(f"pods with other settings are left after {ROLLED_OUT_SECONDS:.0f} s")

    return undo


def _soon(models: list[_Served], holds: Callable[[_Served], bool]) -> bool:
    return poll(lambda: all(map(holds, models)), ROLLED_OUT_SECONDS, every=1.0)


def _settings(document: Mapping[str, Any]) -> str | None:
    """Of a model or of a pod."""
    return (document["metadata"].get("annotations") or {}).get(SETTINGS)
