"""Parts of a platform on a cluster: stopped, started and told apart, on a cluster that is played here."""

import contextlib
import copy
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.probes.kubernetes import KubeReply
from inferencebox.providers.kubernetes.objects import INFERENCE_SERVICE
from inferencebox.providers.kubernetes.platform import KubernetesPlatform
from inferencebox.providers.replicas import KIND_LABEL
from inferencebox.sabotage.effects import NoEffect
from inferencebox.sabotage.kubernetes import KubernetesMeans
from inferencebox.sabotage.remembered import Memory


class PlayedCluster:
    """One DaemonSet for which there is one node, and a ConfigMap."""

    def __init__(self) -> None:
        self.daemon_set: dict[str, Any] = {
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "log-collector", "namespace": "monitoring", "generation": 1, "labels": {}},
            "spec": {"selector": {"matchLabels": {"app": "log-collector"}}, "template": {"spec": {}}},
        }  # fmt: skip
        self.pods: list[dict[str, Any]] = []
        self.config_map = {"data": {"loki.yaml": "period: 8760h"}}

    def list(self, kind: str, namespace: str | None = None, labels: str = "") -> KubeReply:
        items = {"DaemonSet": [self._with_status()], "Pod": self.pods, "pods": self.pods}.get(kind, [])
        return KubeReply(200, object={"items": items})

    def get(self, kind: str, name: str, namespace: str | None = None) -> KubeReply:
        return KubeReply(200, object=self._with_status() if kind == "daemonset" else copy.deepcopy(self.config_map))

    def patch(self, kind: str, name: str, namespace: str, change: dict[str, Any]) -> KubeReply:
        if kind == "configmap":
            self.config_map["data"] |= change["data"]
        else:
            wanted = self.daemon_set["spec"]["template"]["spec"]
            more = change["spec"]["template"]["spec"]["nodeSelector"]
            selector = {**wanted.get("nodeSelector", {}), **more}
            wanted["nodeSelector"] = {name: value for name, value in selector.items() if value is not None}
        return KubeReply(200, object={})

    def watch(self, kind: str, namespace: str | None = None, seconds: int = 0) -> Any:
        yield "ADDED", self._with_status()

    def _with_status(self) -> dict[str, Any]:
        count = 0 if self.daemon_set["spec"]["template"]["spec"].get("nodeSelector") else 1
        names = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
        return copy.deepcopy({**self.daemon_set, "status": {"observedGeneration": 1, **dict.fromkeys(names, count)}})


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> KubernetesPlatform:
    monkeypatch.setattr(KubernetesPlatform, "_kubectl", lambda *_: None)
    made = object.__new__(KubernetesPlatform)
    made.kube = PlayedCluster()  # type: ignore[assignment]
    return made


def state_of(platform: KubernetesPlatform) -> str:
    (part,) = platform.components()
    assert part.name == "log-collector"
    return part.state


def test_what_runs_on_every_node_is_stopped_and_started_like_other_parts(platform: KubernetesPlatform) -> None:
    assert state_of(platform) == "running"
    platform.stop("log-collector")
    assert state_of(platform) == "stopped"
    platform.start("log-collector")
    assert state_of(platform) == "running"


@pytest.mark.parametrize(("ends_by", "asked"), [("--grace-period=1", 1), ("--force", 2), ("nothing", 2)])
def test_a_stopped_part_whose_pod_takes_its_time_is_given_up(
    platform: KubernetesPlatform, monkeypatch: pytest.MonkeyPatch, ends_by: str, asked: int
) -> None:
    manners = []

    def kubectl(_: KubernetesPlatform, *arguments: str) -> None:
        manners.append(arguments)
        if ends_by in arguments:
            platform.kube.pods.clear()  # type: ignore[attr-defined]

    platform.kube.pods += [pod("log-collector-slxmf")]  # type: ignore[attr-defined]
    monkeypatch.setattr(KubernetesPlatform, "_kubectl", kubectl)
    monkeypatch.setattr("inferencebox.providers.kubernetes.platform.ENDING_SECONDS", 0.2)
    with pytest.raises(SetupProblem, match="do not end") if ends_by == "nothing" else contextlib.nullcontext():
        platform.stop("log-collector")
    assert len(manners) == asked


def pod(name: str, owner: str = "", **labels: str) -> dict[str, Any]:
    owners = [{"kind": owner, "name": name.rpartition("-")[0]}] if owner else []
    metadata = {"namespace": "monitoring", "name": name, "labels": labels, "ownerReferences": owners}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


def test_another_pod_of_a_part_is_the_same_part_and_other_replicas_count_by_themselves(
    platform: KubernetesPlatform,
) -> None:
    platform.kube.pods += [  # type: ignore[attr-defined]
        pod("log-collector-slxmf", "DaemonSet", **{KIND_LABEL: "telemetry"}),
        pod("client", **{KIND_LABEL: "client"}),
        pod("iris-predictor-1", "ReplicaSet", **{INFERENCE_SERVICE: "iris"}),
    ]
    names = [part.name for part in platform.components()]
    assert names == ["log-collector", "monitoring.client", "monitoring.iris-predictor-1"]


def test_a_part_that_reads_its_file_only_when_it_starts_is_started_anew_with_another() -> None:
    platform = Mock(kube=PlayedCluster())
    undo = KubernetesMeans(platform).rewritten("collected-logs/loki.yaml", {"8760h": "24h"}, "loki", anew=True)
    assert platform.kube.config_map["data"] == {"loki.yaml": "period: 24h"}
    undo()
    assert platform.kube.config_map["data"] == {"loki.yaml": "period: 8760h"}
    assert [call[0] for call in platform.method_calls] == ["stop", "start", "stop", "start"]


def test_a_file_that_clusters_do_not_have_cannot_be_rewritten_there() -> None:
    with pytest.raises(NoEffect, match="a file of the local platform"):
        KubernetesMeans(Mock()).rewritten("telemetry/prometheus.yaml", {}, "prometheus")


class PlayedKnative:
    """An InferenceService: with other annotations it has another pod at once, and the old one lingers for a look."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {"kept": "as it is"}
        self.lingering: list[dict[str, str]] = []

    def list(self, kind: str, namespace: str | None = None, labels: str = "") -> KubeReply:
        if kind != "pods":
            metadata = {"namespace": "tenant-a", "name": "iris", "annotations": dict(self.annotations)}
            found = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceServiceList"}
            return KubeReply(200, object={**found, "items": [{"metadata": metadata, "spec": {}}]})
        assert (namespace, labels) == ("tenant-a", f"{INFERENCE_SERVICE}=iris")
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        pods = [
            {"metadata": {"annotations": dict(each)}, "status": ready} for each in (self.annotations, *self.lingering)
        ]
        self.lingering.clear()
        return KubeReply(200, object={"items": pods})

    def patch(self, kind: str, name: str, namespace: str, change: dict[str, Any]) -> KubeReply:
        self.lingering.append(dict(self.annotations))
        told = {**self.annotations, **change["metadata"]["annotations"]}
        self.annotations = {key: value for key, value in told.items() if value is not None}
        return KubeReply(200, object={})


def test_sidecars_of_a_model_that_knative_runs_get_other_settings_by_another_revision(tmp_path: Path) -> None:
    cluster = PlayedKnative()
    memory = Memory(tmp_path / "sabotage.json")
    means = KubernetesMeans(Mock(kube=cluster))
    undo = means.with_settings("tenant-a.iris*.proxy", {"SECRET_TTL": "1440h"}, memory)
    assert cluster.annotations["proxy.istio.io/config"] == '{"proxyMetadata": {"SECRET_TTL": "1440h"}}'
    assert [document["metadata"]["annotations"] for _, document in memory.deeds] == [{"kept": "as it is"}]
    undo()
    assert cluster.annotations == {"kept": "as it is"}
    assert not cluster.lingering, "it was waited for until the pods with other settings were gone"
    with pytest.raises(NoEffect, match=r"no InferenceService has the sidecar tenant-b\."):
        means.with_settings("tenant-b.*.proxy", {}, memory)


def test_a_replica_waits_for_room_in_its_tenants_quota(platform: KubernetesPlatform) -> None:
    used_up = KubeReply(403, "Forbidden", 'pods "own" is forbidden: exceeded quota: tenant, requested: limits.cpu=700m')
    made = KubeReply(201, object={})
    platform.kube = Mock(apply=Mock(side_effect=[[used_up], [made]]))
    platform._apply_within_quota({"kind": "Pod"})
    assert platform.kube.apply.call_count == 2
