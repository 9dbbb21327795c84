"""What a cluster can show is asked of it, not assumed."""

from dataclasses import dataclass, field
from subprocess import CompletedProcess

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.layers.catalogue import layers
from inferencebox.platform import Workload
from inferencebox.providers.capabilities import EVERYWHERE, logs, telemetry
from inferencebox.providers.kubernetes.capabilities import CAPABILITIES, PARTS, confirmed
from inferencebox.providers.kubernetes.up import lost_by
from inferencebox.providers.options import DASHBOARDS

READY = {
    "deployment": {"kind": "Deployment", "metadata": {}, "spec": {}, "status": {
        "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
    }},
    "daemonset": {"kind": "DaemonSet", "metadata": {}, "spec": {}, "status": {
        "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1,
    }},
    "gateway.gateway.networking.k8s.io": {"kind": "Gateway", "status": {
        "conditions": [{"type": "Programmed", "status": "True"}],
    }},
    "customresourcedefinition": {"kind": "CustomResourceDefinition", "status": {
        "conditions": [{"type": "Established", "status": "True"}],
    }},
    "apiservice.apiregistration.k8s.io": {"kind": "APIService", "status": {
        "conditions": [{"type": "Available", "status": "True"}],
    }},
    "pod": {"kind": "Pod", "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    "secret": {"kind": "Secret"},
}  # fmt: skip


@dataclass
class Reply:
    object: dict
    ok: bool = True


@dataclass
class Listed:
    items: list


@dataclass
class FakeKube:
    """A cluster that has everything, but for some."""

    absent: set[str] = field(default_factory=set)
    unready: set[str] = field(default_factory=set)
    misses_a_probe: set[str] = field(default_factory=set)
    api_server: tuple[str, ...] = ("kube-apiserver", "--audit-log-path=/var/log/kubernetes/kubernetes-audit.log")

    def get(self, kind, name, namespace):
        if name in self.absent:
            return Reply({}, ok=False)
        found = READY[kind]
        is_unready = name in self.unready or name in self.misses_a_probe
        self.misses_a_probe.discard(name)
        return Reply({**found, "status": {}} if is_unready else found)

    def list(self, kind, namespace, labels):
        assert (kind, namespace, labels) == ("pods", "kube-system", "component=kube-apiserver")
        return Listed([{"spec": {"containers": [{"command": list(self.api_server)}]}}])


@dataclass
class FakePlatform:
    """Whether its network lets the node, and a pod of another namespace, through to a tenant's pod."""

    node: bool = True
    pod: bool = False

    def workloads(self, namespace, app):
        return [Workload(namespace, app, app, "v1", "10.0.0.1")]

    def run_beside(self, argv):
        return CompletedProcess(argv, 0 if self.node else 7)

    def run_in(self, workload, argv):
        return CompletedProcess(argv, 0 if self.pod else 7)


def test_a_cluster_with_all_parts_offers_all_that_they_show():
    declared = {**CAPABILITIES, **telemetry(True), **logs(True), **dict.fromkeys(DASHBOARDS)}
    found = confirmed(FakePlatform(), FakeKube(), declared)
    offered = {*EVERYWHERE, *PARTS, "networkpolicy", "kubernetes.audit"} - {"processes"}
    assert [name for name in offered if found[name]] == []


def test_what_was_left_out_keeps_its_reason_and_what_was_installed_is_confirmed():
    declared = {**CAPABILITIES, "grafana": "only a registry has it", "kiali": None}
    found = confirmed(FakePlatform(), FakeKube(absent={"grafana", "kiali"}), declared)
    assert found["grafana"] == "only a registry has it"
    assert found["kiali"] == "the cluster has no deployment monitoring/kiali"


def test_a_layer_that_did_not_get_ready_costs_the_capability_that_it_gives_and_nothing_else():
    failed = dag.StepsFailed({"kiali": SetupProblem("its pod has no image", "look")}, {}, dag.Timeline())
    assert lost_by(failed, layers()) == {"kiali": "layer kiali: its pod has no image"}


@pytest.mark.parametrize("step", ["istiod", "images"])
def test_what_a_platform_cannot_do_without_ends_the_bring_up_with_all_that_failed(step):
    errors = {"kiali": SetupProblem("no image", "look"), step: SetupProblem("broken", "look")}
    with pytest.raises(SetupProblem, match=f"layer kiali: no image; layer {step}: broken"):
        lost_by(dag.StepsFailed(errors, {}, dag.Timeline()), layers())


def test_every_layer_that_gives_a_capability_gives_one_that_is_confirmed():
    given = {layer.gives for layer in layers().values() if layer.gives}
    assert given == set(DASHBOARDS)
    assert given <= PARTS.keys()


def test_logs_take_a_collector_on_the_nodes():
    found = confirmed(FakePlatform(), FakeKube(absent={"log-collector"}), {**CAPABILITIES, **logs(True)})
    assert found["loki"] == "the cluster has no daemonset monitoring/log-collector"


def test_an_api_server_that_notes_nothing_or_elsewhere_is_not_audited():
    for flags in (("kube-apiserver",), ("kube-apiserver", "--audit-log-path=-")):
        found = confirmed(FakePlatform(), FakeKube(api_server=flags))
        assert "does not note what is done" in found["kubernetes.audit"]


def test_what_takes_a_part_that_is_not_there_is_not_offered():
    found = confirmed(FakePlatform(), FakeKube(absent={"activator"}))
    assert found["autoscaling"] == "the cluster has no deployment knative-serving/activator"
    assert found["gateway"] is None


def test_without_the_api_of_what_pods_use_no_model_scales_by_it():
    found = confirmed(FakePlatform(), FakeKube(unready={"v1beta1.metrics.k8s.io"}))
    assert found["autoscaling.hpa"] == "apiservice v1beta1.metrics.k8s.io is not ready: Available is not said yet"
    assert found["autoscaling"] is None


def test_a_part_that_is_not_ready_is_not_counted_on():
    found = confirmed(FakePlatform(), FakeKube(unready={"istiod"}), seconds=0)
    assert (
        found["mesh.mtls"]
        == "deployment istio-system/istiod is not ready: 0 of 1 replicas are available and up to date"
    )


def test_a_part_that_misses_one_probe_is_waited_for():
    assert confirmed(FakePlatform(), FakeKube(misses_a_probe={"istiod"}))["mesh.mtls"] is None


@pytest.mark.parametrize(
    ("platform", "why"),
    [
        (FakePlatform(pod=True), "does not enforce NetworkPolicies"),
        (FakePlatform(node=False), "can't be told"),
    ],
)
def test_network_policies_are_tried(platform, why):
    assert why in confirmed(platform, FakeKube())["networkpolicy"]
