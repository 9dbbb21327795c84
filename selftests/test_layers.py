"""Layers: as data, as objects, and installed on a cluster that is played here."""

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import Layer, Made, Selected, layers
from inferencebox.layers.choice import Choice, Obstacle
from inferencebox.layers.documents import Kitchen, Maker, Small
from inferencebox.layers.install import NAMESPACE, Installer
from inferencebox.layers.labels import INSTANCE, LAYER
from inferencebox.layers.readiness import why_not_ready
from inferencebox.probes.kubernetes import KubeReply
from inferencebox.providers.kubernetes.images import needed, references
from inferencebox.providers.kubernetes.up import chosen_layers
from inferencebox.providers.options import PlatformOptions
from inferencebox.release import DEFAULT_RELEASE, Release

Document = dict[str, Any]
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: mesh}
spec:
  template:
    spec:
      containers: [{name: mesh, image: vendor/mesh, resources: {requests: {cpu: "2"}, limits: {memory: 1Gi}}}]
"""


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    (tmp_path / "mesh.yaml").write_text(f"{DEPLOYMENT}---\napiVersion: v1\nkind: Role\nmetadata: {{name: reader}}\n")
    return Kitchen(
        files=lambda _layer: tmp_path,
        helm=tmp_path / "helm",
        image=lambda name: f"registry/{name}:v1",
        values={},
        makers={},
        kubernetes="v1.33.4",
        small=Small(
            requests={"cpu": "5m"},
            liveness={"failureThreshold": 12},
            startup={"periodSeconds": 1},
            readiness={"periodSeconds": 5},
            without=frozenset({"HorizontalPodAutoscaler"}),
        ),
    )


def layer(tmp_path: Path, text: str) -> Layer:
    folder = tmp_path / "layers" / "mesh"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layer.yaml").write_text(text)
    return layers(tmp_path / "layers")["mesh"]


ASK = {"path": "/healthz", "port": 81}
FILES = "purpose: the mesh\nnamespace: mesh-system\nparts: [{files: {source: mesh, paths: [mesh.yaml]}}]\n"


class TestData:
    def test_every_shipped_layer_is_read(self) -> None:
        assert {"istiod", "kserve", "tier-1", "tier-2", "policies"} <= layers().keys()

    def test_every_source_of_a_shipped_layer_is_kept_by_the_release(self) -> None:
        kept = Release.load(DEFAULT_RELEASE).files
        sources = {part.source for each in layers().values() for part in each.parts if hasattr(part, "source")}
        assert sources <= kept.keys()

    def test_a_layer_that_comes_after_none_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SetupProblem, match="mesh comes after nothing-of-the-kind"):
            layer(tmp_path, f"{FILES}after: [nothing-of-the-kind]\n")

    def test_a_misspelt_word_is_named_with_its_file(self, tmp_path: Path) -> None:
        with pytest.raises(SetupProblem, match=r"layer\.yaml does not describe a layer.*purpoze"):
            layer(tmp_path, f"{FILES}purpoze: none\n")


class TestDocuments:
    def test_objects_are_ours_by_label_and_in_the_layers_namespace(self, kitchen: Kitchen, tmp_path: Path) -> None:
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, FILES))
        labels = {LAYER: "mesh", INSTANCE: "default"}
        assert deployment["metadata"] == {"name": "mesh", "namespace": "mesh-system", "labels": labels}

    def test_images_are_named_as_the_nodes_have_them(self, kitchen: Kitchen, tmp_path: Path) -> None:
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, f"{FILES}images: {{vendor/mesh: mesh-proxy}}\n"))
        assert _container(deployment)["image"] == "registry/mesh-proxy:v1"

    def test_containers_ask_for_little_on_small_machines_within_the_vendors_limits(
        self, kitchen: Kitchen, tmp_path: Path
    ) -> None:
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, FILES))
        assert _container(deployment)["resources"] == {"requests": {"cpu": "5m"}, "limits": {"memory": "1Gi"}}

    def test_what_every_request_goes_through_asks_for_more(self, kitchen: Kitchen, tmp_path: Path) -> None:
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, f"{FILES}small_cpu: 30m\n"))
        assert _container(deployment)["resources"]["requests"] == {"cpu": "30m"}

    def test_controllers_of_single_replicas_are_told_that_nobody_is_to_be_elected(
        self, kitchen: Kitchen, tmp_path: Path
    ) -> None:
        told = f"{FILES}small_args: {{mesh: [--alone], other: [--no]}}\n"
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, told))
        assert _container(deployment)["args"] == ["--alone"]

    def test_small_machines_are_given_time_before_what_is_late_is_killed(
        self, kitchen: Kitchen, tmp_path: Path
    ) -> None:
        container = _probed(kitchen, tmp_path, "livenessProbe")
        assert container["livenessProbe"] == {"httpGet": ASK, "failureThreshold": 12, "periodSeconds": 2}

    def test_on_small_machines_who_is_not_ready_yet_is_asked_often_and_who_is_seldom(
        self, kitchen: Kitchen, tmp_path: Path
    ) -> None:
        container = _probed(kitchen, tmp_path, "readinessProbe")
        assert container["startupProbe"] == {"httpGet": ASK, "periodSeconds": 1}
        assert container["readinessProbe"] == {"httpGet": ASK, "periodSeconds": 5}

    def test_a_change_is_merged_by_name_into_lists(self, kitchen: Kitchen, tmp_path: Path) -> None:
        containers = "{template: {spec: {containers: [{name: mesh, args: [--quiet]}]}}}"
        change = f"changes: [{{kind: Deployment, name: mesh, merge: {{spec: {containers}}}}}]\n"
        ((deployment, _role),) = kitchen.parts(layer(tmp_path, FILES + change))
        assert _container(deployment)["args"] == ["--quiet"]
        assert _container(deployment)["image"] == "vendor/mesh"

    def test_kinds_can_be_left_out(self, kitchen: Kitchen, tmp_path: Path) -> None:
        (documents,) = kitchen.parts(layer(tmp_path, f"{FILES}without: [Role]\n"))
        assert [each["kind"] for each in documents] == ["Deployment"]

    @pytest.mark.parametrize(
        "part",
        [
            "parts: [{chart: {source: mesh, path: ., name: mesh, values: {global: {proxy: [image:mesh-proxy]}}}}]\n",
            "changes: [{kind: Deployment, name: mesh, merge: {env: image:mesh-proxy}}]\n",
            "images: {vendor/mesh: mesh-proxy}\n",
        ],
    )
    def test_another_image_wherever_it_is_named_is_another_layer(
        self, kitchen: Kitchen, tmp_path: Path, part: str
    ) -> None:
        made = layer(tmp_path, f"purpose: the mesh\n{part}")
        assert kitchen.fingerprint(made) != replace(kitchen, image=lambda name: f"registry/{name}:v2").fingerprint(made)

    def test_charts_are_rendered_with_a_look_at_the_cluster(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kitchen.helm.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {tmp_path}/mesh.yaml\n')
        kitchen.helm.chmod(0o700)
        (tmp_path / "chart").mkdir()
        made = layer(tmp_path, "purpose: the mesh\nparts: [{chart: {source: mesh, path: chart, name: mesh}}]\n")
        assert kitchen.parts(made)
        assert "--dry-run" not in (tmp_path / "asked").read_text()
        assert replace(kitchen, kubeconfig=tmp_path / "kubeconfig").parts(made)
        assert f"--dry-run=server --kubeconfig {tmp_path}/kubeconfig" in (tmp_path / "asked").read_text()

    def test_a_charts_values_are_filled_in_with_texts_and_with_data(self, kitchen: Kitchen, tmp_path: Path) -> None:
        asked = tmp_path / "asked.yaml"
        keep = f"for word; do case $word in */values.yaml) cp $word {asked};; esac; done"
        kitchen.helm.write_text(f"#!/bin/sh\n{keep}\ncat {tmp_path}/mesh.yaml\n")
        kitchen.helm.chmod(0o700)
        (tmp_path / "chart").mkdir()
        chart = (
            "{source: mesh, path: chart, name: mesh, values: {format: '${format}', counts: '${counts}', to: 'a-${to}'}}"
        )
        values = {"format": '{"path": 1}', "counts": {"inclusionRegexps": ["rbac"]}, "to": "b"}
        replace(kitchen, values=values).parts(layer(tmp_path, f"purpose: the mesh\nparts: [{{chart: {chart}}}]\n"))
        assert yaml.safe_load(asked.read_text()) == {"format": '{"path": 1}', "counts": values["counts"], "to": "a-b"}

    def test_what_it_is_made_of_decides_its_fingerprint(self, kitchen: Kitchen, tmp_path: Path) -> None:
        first = kitchen.fingerprint(layer(tmp_path, FILES))
        assert kitchen.fingerprint(layer(tmp_path, FILES)) == first
        (tmp_path / "mesh.yaml").write_text(DEPLOYMENT.replace("vendor/mesh", "vendor/other"))
        assert kitchen.fingerprint(layer(tmp_path, FILES)) != first

    def test_layers_share_a_file_of_ours_and_each_fills_it_in(
        self, kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inferencebox.layers.documents.manifests_dir", lambda: tmp_path)
        (tmp_path / "door.yaml").write_text("kind: Service\nmetadata: {name: '${name}', labels: {of: '${platform}'}}\n")
        kitchen = replace(kitchen, values={"platform": "all", "name": "nobody"})
        part = "parts: [{own: {paths: [door.yaml], values: {name: %s}}}]\n"
        for name in ("north", "south"):
            ((document,),) = kitchen.parts(layer(tmp_path, f"purpose: a door\n{part % name}"))
            assert (document["metadata"]["name"], document["metadata"]["labels"]["of"]) == (name, "all")

    def test_files_that_the_release_does_not_keep_are_named(self, kitchen: Kitchen, tmp_path: Path) -> None:
        with pytest.raises(SetupProblem, match=r"has no charts/\*\.yaml"):
            kitchen.parts(layer(tmp_path, FILES.replace("mesh.yaml", "charts/*.yaml")))


class PlayedCluster:
    """As much of `Kube` as an installer uses. What is applied becomes ready by `settle`."""

    def __init__(self, settle: Callable[[Document], None]) -> None:
        self.settle = settle
        self.objects: dict[tuple[str, str], Document] = {}
        self.applied: list[str] = []
        self.refusals: Iterator[KubeReply | None] = itertools.repeat(None)
        self.events: list[Document] = []

    def get(self, kind: str, name: str, _namespace: str | None = None) -> KubeReply:
        found = self.objects.get((kind.lower(), name))
        return KubeReply(200, object=copy.deepcopy(found)) if found else KubeReply(404, "NotFound")

    def list(self, kind: str, _namespace: str | None = None, labels: str = "") -> KubeReply:
        return KubeReply(200, object={"items": self.events if kind == "events" else []})

    def create(self, document: Document) -> KubeReply:
        self.objects[document["kind"].lower(), document["metadata"]["name"]] = document
        return KubeReply(201, object=document)

    def patch(self, kind: str, name: str, _namespace: str, change: Document) -> KubeReply:
        found = self.objects.get((kind, name))
        if found is None:
            return KubeReply(404, "NotFound")
        data = {**found.get("data", {}), **change["data"]}
        found["data"] = {key: value for key, value in data.items() if value is not None}
        return KubeReply(200, object=found)

    def apply(self, documents: Sequence[Document]) -> Sequence[KubeReply]:
        if refusal := next(self.refusals):
            return [refusal]
        (document,) = documents
        self.applied.append(f"{document['kind']} {document['metadata']['name']}")
        self.settle(document)
        return [self.create(document)]

    def watch(self, kind: str, _namespace: str | None = None, seconds: int = 0) -> Iterator[tuple[str, Document]]:
        for (of, _), found in self.objects.items():
            if of == kind.partition(".")[0].lower():
                yield "ADDED", found


def ready(document: Document) -> None:
    document["status"] = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


class TestChoosing:
    def choice(
        self, telemetry: bool, logs: bool, there: Sequence[str] = (), obstacle: Obstacle = lambda _: None
    ) -> Choice:
        kube = PlayedCluster(ready)
        kube.objects["configmap", "layers"] = {"data": dict.fromkeys(there, "f1")}
        return chosen_layers(kube, PlatformOptions(telemetry=telemetry, logs=logs), obstacle)  # type: ignore[arg-type]

    def chosen(self, telemetry: bool, logs: bool, there: Sequence[str] = ()) -> Mapping[str, Layer]:
        return self.choice(telemetry, logs, there).layers

    def test_what_nobody_asked_for_is_left_out(self) -> None:
        plain = self.chosen(telemetry=False, logs=False)
        assert {"istiod", "policies"} <= plain.keys()
        assert not {"telemetry", "loki", "log-collector"} & plain.keys()
        assert not {"loki", "log-collector"} & self.chosen(telemetry=True, logs=False).keys()

    def test_what_it_comes_after_is_chosen_too(self) -> None:
        assert {"telemetry", "loki", "log-collector"} <= self.chosen(telemetry=False, logs=True).keys()

    def test_what_is_there_stays(self) -> None:
        assert {"telemetry", "loki"} <= self.chosen(telemetry=False, logs=False, there=["loki"]).keys()

    def test_images_that_take_minutes_are_made_only_where_they_are_run(self) -> None:
        release = Release.load(DEFAULT_RELEASE)
        without = needed(release, self.chosen(telemetry=True, logs=False))
        assert needed(release, self.chosen(telemetry=True, logs=True)) == references(release)
        assert references(release).keys() - without.keys() == {"loki", "log-collector"}

    def test_where_an_image_cannot_be_had_its_layer_is_left_out_and_its_capability_says_why(self) -> None:
        choice = self.choice(True, True, obstacle={"grafana": "no registry answers"}.get)
        assert "grafana" not in choice.layers
        assert "kiali" in choice.layers
        assert choice.given == {"grafana": "no registry answers", "kiali": None}
        release = Release.load(DEFAULT_RELEASE)
        assert references(release).keys() - needed(release, choice.layers).keys() == {"grafana"}

    def test_images_are_asked_for_only_where_a_platform_can_do_without(self) -> None:
        asked: list[str] = []
        self.choice(telemetry=True, logs=True, obstacle=asked.append)
        assert sorted(asked) == ["grafana", "kiali"]
        self.choice(telemetry=False, logs=False, obstacle=asked.append)
        assert len(asked) == 2

    def test_what_is_there_stays_though_its_image_could_not_be_had_again(self) -> None:
        choice = self.choice(True, True, there=["grafana"], obstacle=lambda image: f"no {image}")
        assert "grafana" in choice.layers
        assert choice.given == {"grafana": None, "kiali": "no kiali"}

    def test_what_was_not_asked_for_has_another_reason_than_its_image(self) -> None:
        assert self.choice(telemetry=False, logs=False, obstacle=lambda _: "no registry").given == {}

    def test_nothing_comes_after_what_may_be_left_out(self, tmp_path: Path) -> None:
        for name, text in {"map": "{purpose: p, gives: map}", "more": "{purpose: p, after: [map]}"}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "layer.yaml").write_text(text)
        with pytest.raises(SetupProblem, match="the layer more comes after map, which may be left out"):
            layers(tmp_path)


class TestInstalling:
    def installer(self, kube: PlayedCluster, kitchen: Kitchen, seconds: float = 5) -> Installer:
        return Installer(kube, kitchen, lambda *_: None, seconds)  # type: ignore[arg-type]

    def test_a_layer_is_installed_once(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube, mesh = PlayedCluster(ready), layer(tmp_path, FILES)
        self.installer(kube, kitchen).install(mesh)
        assert set(kube.applied) == {"Namespace inferencebox", "Deployment mesh", "Role reader"}
        kube.applied.clear()
        again = self.installer(kube, kitchen)
        again.install(mesh)
        assert kube.applied == []
        assert again.changed == []

    def test_a_layer_made_of_something_else_is_installed_again(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(ready)
        self.installer(kube, kitchen).install(layer(tmp_path, FILES))
        (tmp_path / "mesh.yaml").write_text(DEPLOYMENT.replace("vendor/mesh", "vendor/other"))
        again = self.installer(kube, kitchen)
        again.install(layer(tmp_path, FILES))
        assert again.changed == ["mesh"]

    def test_an_interrupted_layer_is_not_taken_for_installed(self, kitchen: Kitchen, tmp_path: Path) -> None:
        def killed(_document: Document) -> None:
            raise KeyboardInterrupt

        kube, mesh = PlayedCluster(ready), layer(tmp_path, FILES)
        self.installer(kube, kitchen).install(mesh)
        (tmp_path / "mesh.yaml").write_text(DEPLOYMENT.replace("vendor/mesh", "vendor/other"))
        kube.settle = killed
        with pytest.raises(KeyboardInterrupt):
            self.installer(kube, kitchen).install(mesh)
        assert kube.objects["configmap", "layers"]["data"] == {}

    def test_one_that_never_gets_ready_is_named_with_its_last_events(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(lambda _document: None)
        pod = {"kind": "Pod", "name": "mesh-5d4f"}
        message = "Failed to pull image vendor/mesh"
        kube.events = [{"type": "Warning", "involvedObject": pod, "reason": "Failed", "message": message}]
        with pytest.raises(SetupProblem) as problem:
            self.installer(kube, kitchen, seconds=0.3).install(layer(tmp_path, FILES))
        assert problem.value.what.startswith("deployment mesh in mesh-system was not ready in time: 0 of 1 replicas")
        assert "last events: pod mesh-5d4f: Failed: Failed to pull image vendor/mesh" in problem.value.what
        assert problem.value.fix == "kubectl describe deployment mesh -n mesh-system"

    def test_a_refusal_that_passes_is_tried_again(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(ready)
        message = 'failed calling webhook "webhook.example": connection refused'
        kube.refusals = itertools.chain([KubeReply(500, "InternalError", message)], itertools.repeat(None))
        self.installer(kube, kitchen).install(layer(tmp_path, FILES))
        assert "Deployment mesh" in kube.applied

    def test_a_refusal_that_lasts_is_told_at_once(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(ready)
        kube.refusals = itertools.repeat(KubeReply(403, "Forbidden", 'User "me" cannot patch deployments'))
        with pytest.raises(SetupProblem, match="refuses Deployment mesh in mesh-system: 403 by rbac"):
            self.installer(kube, kitchen, seconds=60).install(layer(tmp_path, FILES))

    def test_what_somebody_else_makes_is_waited_for(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(ready)
        waits = Layer("tier", "", tmp_path, parts=[], ready=[Selected("deployment", "edge", labels="owner=tier")])
        (tmp_path / "layer.yaml").write_text("")
        with pytest.raises(SetupProblem, match="deployment owner=tier in edge was not ready in time: there is none"):
            self.installer(kube, kitchen, seconds=0.3).install(waits)

    def test_what_gets_ready_by_later_layers_is_not_waited_for(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(lambda _document: None)
        self.installer(kube, kitchen).install(layer(tmp_path, f"{FILES}unawaited: [Deployment]\n"))
        assert "Deployment mesh" in kube.applied

    def test_objects_that_code_makes_are_made_anew_only_when_made_from_something_else(
        self, kitchen: Kitchen, tmp_path: Path
    ) -> None:
        made: list[int] = []
        maker = Maker("made once", lambda: made.append(1) or [])  # type: ignore[func-returns-value]
        cook = Kitchen(kitchen.files, kitchen.helm, kitchen.image, {}, {"authorities": maker}, "v1.33.4")
        kube, keys = PlayedCluster(ready), Layer("keys", "", tmp_path, parts=[Made("authorities")])
        (tmp_path / "layer.yaml").write_text("")
        for _ in range(2):
            self.installer(kube, cook).install(keys)
        assert made == [1]

    def test_it_is_written_down_in_a_namespace_of_ours(self, kitchen: Kitchen, tmp_path: Path) -> None:
        kube = PlayedCluster(ready)
        self.installer(kube, kitchen).install(layer(tmp_path, FILES))
        assert ("namespace", NAMESPACE) in kube.objects


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"kind": "Deployment", "spec": {"replicas": 2}, "status": {"availableReplicas": 1}}, "0 of 2 replicas"),
        (
            {"kind": "Deployment", "spec": {}, "metadata": {"generation": 2}, "status": {"observedGeneration": 1}},
            "has not seen it",
        ),
        ({"kind": "Gateway", "status": {}}, "Programmed is not said yet"),
        (
            {
                "kind": "Certificate",
                "status": {"conditions": [{"type": "Ready", "status": "False", "message": "no CA"}]},
            },
            r"Ready is False \(no CA\)",
        ),
        ({"kind": "DaemonSet", "spec": {}, "status": {"desiredNumberScheduled": 3}}, "0 of 3 pods"),
        (
            {"kind": "DaemonSet", "spec": {}, "metadata": {"generation": 2}, "status": {"observedGeneration": 1}},
            "has not seen it",
        ),
    ],
)
def test_what_is_missing_is_said(found: Document, why: str) -> None:
    said = why_not_ready({"metadata": {}, **found})
    assert said
    assert re.search(why, said)


def test_a_kind_without_a_notion_of_ready_is_ready() -> None:
    assert why_not_ready({"kind": "ConfigMap", "metadata": {}}) is None


def _container(deployment: Document) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def _probed(kitchen: Kitchen, folder: Path, probe: str) -> Any:
    """A layer's container to which a change gives a probe."""
    asked = "{httpGet: {path: /healthz, port: 81}, failureThreshold: 3, periodSeconds: 2}"
    containers = f"{{template: {{spec: {{containers: [{{name: mesh, {probe}: {asked}}}]}}}}}}"
    change = f"changes: [{{kind: Deployment, name: mesh, merge: {{spec: {containers}}}}}]\n"
    ((deployment, _role),) = kitchen.parts(layer(folder, FILES + change))
    return _container(deployment)
