"""A cluster of somebody else's: what is found there, what is asked, what is spared, and what is removed again."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_registry import Registry
from fake_registry import serving as registry_serving
from loopback import Server, closed_port, serving
from small_api import SmallApi
from small_api import kubeconfig as config_file

from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import Layer, Selected, layers
from inferencebox.layers.choice import Choice
from inferencebox.layers.labels import BORROWED, INSTANCE, LAYER
from inferencebox.layers.others import Others
from inferencebox.probes.kubernetes import FIELD_MANAGER, Kube
from inferencebox.programs import registry as registry_client
from inferencebox.providers.cluster import kubeconfig
from inferencebox.providers.cluster.access import TO_INSTALL, Access
from inferencebox.providers.cluster.lease import Lease
from inferencebox.providers.cluster.plan import Plan, State, plan
from inferencebox.providers.cluster.pulling import obstacle
from inferencebox.providers.cluster.removal import Removal
from inferencebox.providers.cluster.survey import Nodes, detection, quantity, split, survey
from inferencebox.release import DEFAULT_RELEASE, OUR_IMAGES, Release

Document = dict[str, Any]
KIALI = "quay.io/kiali/kiali:v2.11.0"


def thing(kind: str, name: str, api: str = "v1", namespace: str = "", labels: Any = None, **more: Any) -> Document:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels or {}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}


def deployment(name: str, namespace: str, image: str, labels: Any = None) -> Document:
    spec = {"template": {"spec": {"containers": [{"name": "it", "image": image}]}}}
    return thing("Deployment", name, "apps/v1", namespace, labels, spec=spec)


def node(*images: str) -> Document:
    status = {"allocatable": {"cpu": "1500m", "memory": "4Gi"}, "images": [{"names": [image]} for image in images]}
    return thing("Node", "n", status=status)


@pytest.fixture
def api() -> SmallApi:
    return SmallApi(thing("Namespace", "default"), thing("Namespace", "kube-system"), node())


@pytest.fixture
def server(api: SmallApi) -> Iterator[Server]:
    with serving(api) as running:
        yield running


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    return Kube(config_file(server.endpoint, tmp_path))


class TestKubeconfig:
    def test_one_context_is_taken_with_its_cluster_and_user_and_files_that_can_be_found(self, tmp_path: Path) -> None:
        file = tmp_path / "config"
        contexts = [{"name": name, "context": {"cluster": name, "user": name}} for name in ("lab", "work")]
        clusters = [{"name": name, "cluster": {"server": f"https://{name}"}} for name in ("lab", "work")]
        users = [{"name": name, "user": {"client-key": f"{name}.key"}} for name in ("lab", "work")]
        document = {"current-context": "lab", "contexts": contexts, "clusters": clusters, "users": users}
        file.write_text(yaml.safe_dump(document))
        for context, wanted in (("", "lab"), ("work", "work")):
            taken = kubeconfig.chosen(file, context)
            assert kubeconfig.server_of(taken) == f"https://{wanted}"
            assert taken["users"] == [{"name": wanted, "user": {"client-key": str(tmp_path / f"{wanted}.key")}}]

    def test_several_files_are_one_as_for_kubectl(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = tmp_path / "a", tmp_path / "b"
        first.write_text(yaml.safe_dump({"current-context": "lab"}))
        contexts = [{"name": "lab", "context": {"cluster": "c"}}]
        clusters = [{"name": "c", "cluster": {"server": "https://c"}}]
        second.write_text(yaml.safe_dump({"contexts": contexts, "clusters": clusters}))
        monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'not-there'}:{second}")
        assert kubeconfig.server_of(kubeconfig.chosen(None, "")) == "https://c"

    @pytest.mark.parametrize(
        ("text", "context", "said"),
        [
            ("contexts: [{name: lab, context: {cluster: c}}]", "prod", "no context 'prod' in .* one of lab"),
            ("contexts: []", "", "has no current context"),
            ("{", "", "it is not YAML"),
            ("contexts: [{name: lab, context: {cluster: c}}]", "lab", "names the cluster 'c' and does not have it"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, text: str, context: str, said: str) -> None:
        file = tmp_path / "config"
        file.write_text(text)
        with pytest.raises(SetupProblem, match=said):
            kubeconfig.chosen(file, context)

    def test_no_file_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(SetupProblem, match="there is no kubeconfig"):
            kubeconfig.chosen(tmp_path / "none", "")

    def test_what_is_kept_is_nobody_elses_to_read(self, tmp_path: Path) -> None:
        kubeconfig.write(tmp_path / "kept", {"kind": "Config"})
        assert (tmp_path / "kept").stat().st_mode & 0o77 == 0


class TestAccess:
    def test_a_cluster_that_does_not_answer_is_named_with_its_address(self, tmp_path: Path) -> None:
        access = Access(Kube(config_file(closed_port(), tmp_path)), "lab")
        with pytest.raises(SetupProblem, match=r"cluster lab does not answer at http://.*: nobody listens there"):
            access.version()

    def test_what_is_no_kubernetes_is_said(self, tmp_path: Path) -> None:
        with (
            serving(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as page,
            pytest.raises(SetupProblem, match="is no Kubernetes API"),
        ):
            Access(Kube(config_file(page.endpoint, tmp_path)), "lab").version()

    def test_credentials_that_are_not_taken_are_said(self, kube: Kube, api: SmallApi) -> None:
        api.refusals["GET", "namespaces"] = 401
        with pytest.raises(SetupProblem, match=r"does not take this kubeconfig's credentials"):
            Access(kube, "lab").version()

    def test_who_may_do_everything_is_asked_once(self, kube: Kube, api: SmallApi) -> None:
        Access(kube, "lab").require(TO_INSTALL)
        assert len(api.sent) == 1

    def test_what_is_forbidden_is_named_by_verb_and_resource(self, kube: Kube, api: SmallApi) -> None:
        api.forbidden = {("create", "namespaces"), ("create", "pods/exec")}
        with pytest.raises(SetupProblem) as problem:
            Access(kube, "lab").require(TO_INSTALL)
        assert problem.value.what == "me@example may not create namespaces in the cluster lab and 1 more"
        assert problem.value.fix.endswith("create namespaces, create pods/exec")


def planned(kube: Kube, version: str = "v1.33.4", images: tuple[str, ...] = (), instance: str = "mine") -> Plan:
    choice = Choice(layers(), {})
    return plan(survey(kube, "lab", version), Release.load(DEFAULT_RELEASE), choice, instance, images)


def states(found: Plan) -> dict[str, State]:
    return {line.part: line.state for line in found.lines}


class TestPlan:
    def test_what_can_be_recognised_are_layers_that_there_are(self) -> None:
        assert {made for part in detection().parts for made in part.makes} <= layers().keys()
        pinned = Release.load(DEFAULT_RELEASE).layers.keys()
        assert {part.layer for part in detection().parts} <= {*pinned, "gateway-api"}

    def test_on_a_bare_cluster_everything_is_missing(self, kube: Kube) -> None:
        found = planned(kube)
        assert states(found)["istio"] is State.MISSING
        assert list(found.missing) == list(layers())
        found.require_possible()
        with pytest.raises(SetupProblem, match="nobody agreed to install them"):
            found.require_nothing_to_do()

    def test_a_cert_manager_that_is_there_is_used(self, kube: Kube, api: SmallApi) -> None:
        api.put(deployment("cm", "cert-manager", "mirror.example/jetstack/cert-manager-controller:v1.17.2"))
        found = planned(kube)
        (line,) = [line for line in found.lines if line.part == "cert-manager"]
        assert (line.state, line.there, line.wanted) == (State.USED, "v1.17.2", "v1.18.1")
        assert "cert-manager" not in found.missing
        assert "istiod" in found.missing

    def test_one_that_is_too_old_is_refused_by_the_support_ranges(self, kube: Kube, api: SmallApi) -> None:
        api.put(deployment("cm", "cert-manager", "quay.io/jetstack/cert-manager-controller:v1.12.0"))
        with pytest.raises(SetupProblem, match=r"cert-manager v1.12.0 is too old \(.*kserve 0.15 .* 1.15 or newer"):
            planned(kube).require_possible()

    def test_a_kubernetes_that_is_too_old_is_refused(self, kube: Kube) -> None:
        with pytest.raises(SetupProblem, match=r"kubernetes v1.29.3 is too old \(.*ai-gateway 1.0"):
            planned(kube, version="v1.29.3").require_possible()

    def test_somebodys_mesh_is_in_the_way_and_why_is_said(self, kube: Kube, api: SmallApi) -> None:
        label = {"app.kubernetes.io/version": "1.24.0"}
        api.put(deployment("istiod", "istio-system", "docker.io/istio/pilot@sha256:ab", label))
        found = planned(kube)
        assert states(found)["istio"] is State.UNUSABLE
        assert found.survey.facts["mesh"] == "Istio, sidecars"
        with pytest.raises(SetupProblem, match=r"istio 1.24.0 is in the way \(deployment istiod in istio-system"):
            found.require_possible()

    def test_what_is_ours_is_neither_missing_nor_in_the_way(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("Namespace", "inferencebox", labels={INSTANCE: "mine"}))
        api.put(thing("ConfigMap", "layers", namespace="inferencebox", data=dict.fromkeys(layers(), "x")))
        api.put(deployment("istiod", "istio-system", "docker.io/istio/pilot:1.26.2", {INSTANCE: "mine"}))
        found = planned(kube)
        assert states(found)["istio"] is State.OURS
        found.require_possible()
        found.require_nothing_to_do()

    def test_another_platform_of_ours_is_in_the_way(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("Namespace", "inferencebox", labels={INSTANCE: "theirs"}))
        with pytest.raises(SetupProblem, match="only one fits on a cluster: use it"):
            planned(kube).require_possible()

    def test_images_of_ours_that_no_node_has_are_nowhere_and_others_are_pulled(self, kube: Kube) -> None:
        found = planned(kube, images=("quay.io/some/thing:1", f"{OUR_IMAGES}client:0.1.0"))
        assert found.pulled == ["quay.io/some/thing:1"]
        with pytest.raises(SetupProblem, match=f"no registry has {OUR_IMAGES}client:0.1.0"):
            found.require_possible()

    def test_who_enforces_network_policies_is_told(self, kube: Kube, api: SmallApi) -> None:
        spec = {"template": {"spec": {"containers": [{"name": "c", "image": "docker.io/calico/node:v3.29.1"}]}}}
        api.put(thing("DaemonSet", "calico-node", "apps/v1", "kube-system", spec=spec))
        assert planned(kube).survey.facts["NetworkPolicies"] == "enforced by Calico"

    @pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("2", 2), ("16Gi", 16 * 2**30), ("1k", 1000)])
    def test_quantities_are_read(self, text: str, number: float) -> None:
        assert quantity(text) == number

    @pytest.mark.parametrize(
        ("reference", "halves"),
        [
            ("host:5000/a/b:1.2", ("host:5000/a/b", "1.2")),
            ("host:5000/a/b", ("host:5000/a/b", "")),
            ("a/b:1@sha256:cd", ("a/b", "1")),
        ],
    )
    def test_references_are_split(self, reference: str, halves: tuple[str, str]) -> None:
        assert split(reference) == halves


class TestPulling:
    @pytest.fixture
    def registry(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
        registry_client.why_not.cache_clear()
        with registry_serving() as running:
            monkeypatch.setenv(registry_client.MIRROR_VARIABLE, f"127.0.0.1:{running.port}")
            yield running
        registry_client.why_not.cache_clear()

    def obstacle(self, nodes: Nodes) -> str | None:
        return obstacle(nodes, Release.load(DEFAULT_RELEASE), "kiali")

    def test_what_every_node_has_is_asked_of_nobody(self, registry: Registry) -> None:
        assert self.obstacle(Nodes(images=frozenset({KIALI}))) is None
        assert registry.asked == []

    @pytest.mark.parametrize("nodes", [Nodes(images=frozenset()), Nodes(images=None)])
    def test_what_the_registry_has_under_the_tag_can_be_pulled(self, registry: Registry, nodes: Nodes) -> None:
        assert f"not every node is known to have {KIALI}" in str(self.obstacle(nodes))
        registry_client.why_not.cache_clear()
        registry.tags["v2.11.0"] = registry.add_image([])
        assert self.obstacle(nodes) is None

    def test_what_an_older_release_does_not_name_cannot_be_had(self) -> None:
        release = Release.load(DEFAULT_RELEASE)
        older = release.model_copy(update={"images": {}})
        assert obstacle(Nodes(), older, "kiali") == f"the release {release.name} names no image kiali"

    def test_what_is_left_out_is_part_of_the_plan(self, kube: Kube) -> None:
        choice = Choice({name: layer for name, layer in layers().items() if not layer.gives}, {"kiali": "no registry"})
        found = plan(survey(kube, "lab", "v1.33.4"), Release.load(DEFAULT_RELEASE), choice, "mine", [])
        assert "kiali" not in found.missing
        assert found.choice.left_out == {"kiali": "no registry"}


class TestOthers:
    def test_what_is_not_there_is_applied_whole(self, kube: Kube) -> None:
        mine = thing("ConfigMap", "c", namespace="default")
        assert Others(kube, "mine").spare(mine) == mine

    def test_what_is_ours_is_applied_again(self, kube: Kube, api: SmallApi) -> None:
        mine = thing("ConfigMap", "c", namespace="default", labels={INSTANCE: "mine"})
        api.put(mine)
        assert Others(kube, "mine").spare(mine) == mine

    def test_somebodys_object_is_not_taken_over(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("ConfigMap", "c", namespace="default"))
        with pytest.raises(SetupProblem, match="ConfigMap c in default is there already, made by somebody else"):
            Others(kube, "mine").spare(thing("ConfigMap", "c", namespace="default"))

    def test_another_platforms_object_is_named_as_such(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("ConfigMap", "c", namespace="default", labels={INSTANCE: "theirs"}))
        with pytest.raises(SetupProblem, match="belongs to another platform of ours, theirs"):
            Others(kube, "mine").spare(thing("ConfigMap", "c", namespace="default"))

    def test_a_definition_that_is_there_is_used(self, kube: Kube, api: SmallApi) -> None:
        definition = thing("CustomResourceDefinition", "things.things.example", "apiextensions.k8s.io/v1")
        api.put(definition)
        assert Others(kube, "mine").spare(definition) is None

    def test_a_namespace_that_is_there_is_lent_labels_and_does_not_become_ours(self, kube: Kube) -> None:
        wanted = thing("Namespace", "default", labels={"routes": "tier-1", INSTANCE: "mine", LAYER: "namespaces"})
        borrowed = Others(kube, "mine").spare(wanted)
        assert borrowed is not None
        assert borrowed["metadata"]["labels"] == {"routes": "tier-1", BORROWED: "mine"}
        bare = thing("Namespace", "default", labels={INSTANCE: "mine", LAYER: "namespaces"})
        assert Others(kube, "mine").spare(bare) is None

    def test_a_label_that_somebody_set_otherwise_is_not_changed(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("Namespace", "default", labels={"injection": "no"}))
        with pytest.raises(SetupProblem, match="default is there with injection=no, not yes"):
            Others(kube, "mine").spare(thing("Namespace", "default", labels={"injection": "yes"}))


class TestLease:
    def lease(self, kube: Kube, holder: str, seconds: float = 1.0) -> Lease:
        return Lease(kube, "mine", holder, seconds)

    def test_a_second_run_is_told_who_is_there(self, kube: Kube) -> None:
        with (
            self.lease(kube, "ann@here", seconds=30).held(),
            pytest.raises(SetupProblem, match="somebody else works with the platform on this cluster: ann@here, since"),
        ):
            self.lease(kube, "bob@there").held().__enter__()

    def test_it_is_free_again_afterwards(self, kube: Kube) -> None:
        for holder in ("ann", "bob"):
            with self.lease(kube, holder, seconds=30).held() as lease:
                lease.require()

    def test_it_is_renewed_in_the_background(self, kube: Kube, api: SmallApi) -> None:
        with self.lease(kube, "ann", seconds=0.3).held() as lease:
            found = api.get("Lease", "platform")
            assert found
            first = found["spec"]["renewTime"]
            deadline = time.monotonic() + 5
            while (now := api.get("Lease", "platform")) and now["spec"]["renewTime"] == first:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            lease.require()

    def test_one_whose_holder_died_is_taken_over(self, kube: Kube, api: SmallApi) -> None:
        self.lease(kube, "dead").take()
        left = api.get("Lease", "platform")
        assert left
        api.put({**left, "spec": {**left["spec"], "renewTime": "2026-01-01T00:00:00.000000Z"}})
        with self.lease(kube, "heir", seconds=0.3).held():
            taken = api.get("Lease", "platform")
            assert taken
            assert (taken["spec"]["holderIdentity"], taken["spec"]["leaseTransitions"]) == ("heir", 1)

    def test_one_that_was_taken_away_is_noticed(self, kube: Kube, api: SmallApi) -> None:
        with self.lease(kube, "ann", seconds=0.3).held() as lease:
            left = api.get("Lease", "platform")
            assert left
            api.put({**left, "spec": {**left["spec"], "holderIdentity": "thief"}})
            deadline = time.monotonic() + 5
            while lease.problem is None and time.monotonic() < deadline:
                time.sleep(0.02)
            with pytest.raises(SetupProblem, match="was lost: it was taken by thief"):
                lease.require()

    def test_whoever_may_not_have_it_is_told(self, kube: Kube, api: SmallApi) -> None:
        api.refusals["POST", "leases"] = 403
        with pytest.raises(SetupProblem, match="cannot be taken: 403 by rbac"):
            self.lease(kube, "ann").held().__enter__()


class TestRemoval:
    def removed(self, kube: Kube, *parts: Layer) -> list[str]:
        return Removal(kube, "mine", parts, lambda _: None).run()

    def test_all_that_is_ours_goes_and_nothing_else(self, kube: Kube, api: SmallApi) -> None:
        ours = {INSTANCE: "mine"}
        api.put(thing("ConfigMap", "theirs", namespace="default"))
        api.put(thing("ClusterRole", "theirs", "rbac.authorization.k8s.io/v1", labels={INSTANCE: "another"}))
        before = api.names()
        api.put(thing("Namespace", "inferencebox", labels=ours))
        api.put(thing("Namespace", "tenant-a", labels=ours))
        api.put(thing("ConfigMap", "unlabelled", namespace="tenant-a"))
        api.put(thing("ConfigMap", "mine", namespace="default", labels=ours))
        api.put(thing("ClusterRole", "mine", "rbac.authorization.k8s.io/v1", labels=ours))
        assert self.removed(kube) == []
        assert api.names() == before

    def test_objects_go_before_their_definitions_and_both_before_our_records(self, kube: Kube, api: SmallApi) -> None:
        self.define(api, owner="mine")
        api.put(thing("Namespace", "inferencebox", labels={INSTANCE: "mine"}))
        api.put(thing("Thing", "t", "things.example/v1", "default", {INSTANCE: "mine"}))
        assert self.removed(kube) == []
        deleted = [path.rpartition("/")[2] for method, path in api.sent if method == "DELETE"]
        assert deleted == ["t", "things.things.example", "inferencebox"]

    def test_what_scenarios_left_of_such_kinds_goes_too(self, kube: Kube, api: SmallApi) -> None:
        self.define(api, owner="mine")
        left = thing("Thing", "t", "things.example/v1", "default")
        left["metadata"]["managedFields"] = [{"manager": FIELD_MANAGER}]
        api.put(left)
        assert self.removed(kube) == []
        assert api.get("Thing", "t") is None

    def test_a_definition_stays_while_somebody_has_objects_of_it(self, kube: Kube, api: SmallApi) -> None:
        self.define(api, owner="mine")
        api.put(thing("Thing", "theirs", "things.example/v1", "default"))
        assert self.removed(kube) == ["the definition things.things.example: Thing theirs in default is somebody's"]
        assert api.get("Thing", "theirs")

    def test_what_programs_left_elsewhere_goes_if_it_is_not_older_than_the_platform(
        self, kube: Kube, api: SmallApi
    ) -> None:
        maker = Layer("mesh", "", Path(), leaves=[Selected("configmap", name="root-cert")])
        api.put(thing("ConfigMap", "root-cert", namespace="kube-system"), created="2025-01-01T00:00:00Z")
        api.put(thing("Namespace", "inferencebox", labels={INSTANCE: "mine"}))
        api.put(thing("ConfigMap", "root-cert", namespace="default"))
        self.removed(kube, maker)
        left = [each["metadata"]["namespace"] for each in api.objects.values() if each["kind"] == "ConfigMap"]
        assert left == ["kube-system"]

    def test_borrowed_namespaces_stay_and_give_our_labels_back(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("Namespace", "default", labels={BORROWED: "mine", "routes": "tier-1"}))
        self.removed(kube)
        found = api.get("Namespace", "default")
        assert found
        assert "labels" not in found["metadata"]

    def test_it_can_be_begun_again_when_all_is_gone(self, kube: Kube, api: SmallApi) -> None:
        before = api.names()
        assert self.removed(kube) == []
        assert api.names() == before

    def test_what_is_refused_for_the_moment_is_tried_again(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("ClusterRole", "mine", "rbac.authorization.k8s.io/v1", labels={INSTANCE: "mine"}))
        api.refusals["DELETE", "mine"] = 500
        answering = threading.Timer(0.7, api.refusals.clear)
        answering.start()
        assert self.removed(kube) == []
        answering.join()
        assert api.get("ClusterRole", "mine") is None

    def test_what_may_not_be_deleted_is_named_at_once(self, kube: Kube, api: SmallApi) -> None:
        api.put(thing("ClusterRole", "mine", "rbac.authorization.k8s.io/v1", labels={INSTANCE: "mine"}))
        api.refusals["DELETE", "mine"] = 403
        with pytest.raises(SetupProblem, match="ClusterRole mine cannot be deleted: 403 by rbac"):
            self.removed(kube)

    def test_what_may_not_be_listed_is_named(self, kube: Kube, api: SmallApi) -> None:
        api.refusals["GET", "secrets"] = 403
        with pytest.raises(SetupProblem, match="secrets cannot be listed: 403 by rbac"):
            self.removed(kube)

    def define(self, api: SmallApi, owner: str) -> None:
        spec = {"group": "things.example", "names": {"plural": "things", "kind": "Thing"}}
        name, version = "things.things.example", "apiextensions.k8s.io/v1"
        api.put(thing("CustomResourceDefinition", name, version, labels={INSTANCE: owner}, spec=spec))
