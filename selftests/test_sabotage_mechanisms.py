"""Mechanisms of sabotage on an API in memory: what they break, for whom, and that all is as before afterwards."""

import base64
import copy
from contextlib import ExitStack
from unittest.mock import Mock

import pytest
from cryptography import x509
from fake_kube import FakeKube

from inferencebox.checks import equals
from inferencebox.manifests import full_kind
from inferencebox.sabotage.documents import append_at, content, remove_at, set_at
from inferencebox.sabotage.mechanisms import Change, Create, Delete, ForeignCertificate, NoEffect, Scene, Stop
from inferencebox.sabotage.remembered import Memory, NotHealed
from inferencebox.sabotage.rules import (
    forget_namespace,
    freeze_shares,
    ignore_headers,
    lift_limit,
    share_bucket,
    swap_canary,
    swap_shares,
)
from inferencebox.waiting import eventually


def shares(name="canary", namespace="tenant-a", **weights):
    route = [{"destination": {"subset": version}, "weight": weight} for version, weight in weights.items()]
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "VirtualService", "metadata": metadata, "spec": {"http": [{"route": route}]}}


def weights_of(document):
    return [share["weight"] for share in document["spec"]["http"][0]["route"]]


@pytest.fixture
def stage(tmp_path):
    """Makes a scene over some objects; all is put back by `heal`."""

    def make(*documents, api=FakeKube):
        kube = api(*documents)
        memory, ends, platform = Memory(tmp_path / "sabotage.json"), ExitStack(), Mock()
        scene = Scene(platform, kube, memory, ends)

        def heal():
            ends.close()
            memory.undo(kube)

        return kube, scene, heal

    return make


# --- places in documents


def test_a_path_names_places_in_lists_and_mappings():
    document = {"spec": {"http": [{"timeout": "1s"}, {}], "labels": {"a/b": 1}}}
    set_at(document, "/spec/http/*/timeout", "9s")
    remove_at(document, "/spec/labels/a~1b")
    append_at(document, "/spec/http", {"new": True})
    assert document == {"spec": {"http": [{"timeout": "9s"}, {"timeout": "9s"}, {"new": True}], "labels": {}}}


def test_a_number_in_a_path_is_one_entry_of_a_list():
    document = {"rules": [{"name": "first"}, {"name": "second", "to": [1, 2]}]}
    remove_at(document, "/rules/1/to/0")
    set_at(document, "/rules/0/name", "other")
    remove_at(document, "/rules/7")
    assert document == {"rules": [{"name": "other"}, {"name": "second", "to": [2]}]}
    remove_at(document, "/rules/1")
    assert document == {"rules": [{"name": "other"}]}


def test_a_path_that_leads_nowhere_changes_nothing():
    document = {"spec": {}}
    set_at(document, "/spec/cors/allowOrigins", ["*"])
    remove_at(document, "/spec/jwt/providers/*/audiences")
    assert document == {"spec": {}}


# --- change


def test_a_change_is_undone_to_the_letter(stage):
    kube, scene, heal = stage(shares(v1=90, v2=10))
    before = content(kube.objects["VirtualService", "tenant-a", "canary"])
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    assert weights_of(kube.objects["VirtualService", "tenant-a", "canary"]) == [10, 90]
    heal()
    assert content(kube.objects["VirtualService", "tenant-a", "canary"]) == before


def test_a_change_concerns_what_it_names(stage):
    kube, scene, heal = stage(shares("own-1", v1=90, v2=10), shares("other", v1=90, v2=10))
    Change(do="change", kind="VirtualService", names=["own-*"], rule="swap_shares").apply(scene)
    assert weights_of(kube.objects["VirtualService", "tenant-a", "other"]) == [90, 10]
    assert weights_of(kube.objects["VirtualService", "tenant-a", "own-1"]) == [10, 90]
    heal()


def test_objects_that_come_or_change_meanwhile_are_broken_too(stage):
    kube, scene, heal = stage()
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    kube.put(shares("new", v1=80, v2=20))

    def now():
        return weights_of(kube.objects["VirtualService", "tenant-a", "new"])

    eventually(now, equals([20, 80]), within=5)
    kube.put(shares("new", v1=70, v2=30))
    eventually(now, equals([30, 70]), within=5)
    heal()
    assert now() == [70, 30], "what its owner wanted last"


def test_what_is_broken_once_is_not_broken_back(stage):
    kube, scene, heal = stage(shares(v1=90, v2=10))
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    kube.put(copy.deepcopy(kube.objects["VirtualService", "tenant-a", "canary"]))  # a write that wants nothing new
    kube.put(shares("later", v1=60, v2=40))
    eventually(lambda: weights_of(kube.objects["VirtualService", "tenant-a", "later"]), equals([40, 60]), within=5)
    assert weights_of(kube.objects["VirtualService", "tenant-a", "canary"]) == [10, 90]
    heal()


def test_after_the_end_new_objects_are_left_alone(stage):
    kube, scene, heal = stage(shares(v1=90, v2=10))
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    heal()
    kube.put(shares("after", v1=80, v2=20))
    assert weights_of(kube.objects["VirtualService", "tenant-a", "after"]) == [80, 20]


def test_an_object_that_its_test_has_removed_needs_no_healing(stage):
    kube, scene, heal = stage(shares(v1=90, v2=10))
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    kube.delete("VirtualService", "canary", "tenant-a")
    heal()
    assert not kube.objects


# --- delete, create, stop


def test_what_was_deleted_comes_back(stage):
    quota = {
        "kind": "ResourceQuota",
        "metadata": {"name": "tenant", "namespace": "tenant-a"},
        "spec": {"hard": {"pods": "20"}},
    }
    kube, scene, heal = stage(quota)
    Delete(do="delete", kind="ResourceQuota").apply(scene)
    assert not kube.objects
    heal()
    assert kube.spec("ResourceQuota", "tenant", "tenant-a") == quota["spec"]


def test_nothing_to_delete_is_no_sabotage(stage):
    _, scene, _ = stage()
    with pytest.raises(NoEffect, match="no ResourceQuota"):
        Delete(do="delete", kind="ResourceQuota").apply(scene)


def test_what_was_created_goes(stage):
    kube, scene, heal = stage()
    Create(do="create", objects=[{"kind": "ClusterRole", "apiVersion": "v1", "metadata": {"name": "s"}}]).apply(scene)
    assert len(kube.objects) == 1
    heal()
    assert not kube.objects


def test_a_stopped_component_is_started_again(stage):
    _, scene, heal = stage()
    Stop(do="stop", component="kube-scheduler").apply(scene)
    scene.platform.stop.assert_called_once_with("kube-scheduler")
    scene.platform.start.assert_not_called()
    heal()
    scene.platform.start.assert_called_once_with("kube-scheduler")


def test_a_run_that_was_killed_is_healed_by_the_next(stage, tmp_path):
    kube, scene, _ = stage(shares(v1=90, v2=10), shares("gone", v1=1, v2=2))
    Change(do="change", kind="VirtualService", names=["canary"], rule="swap_shares").apply(scene)
    Delete(do="delete", kind="VirtualService", names=["gone"]).apply(scene)
    Memory.read(tmp_path / "sabotage.json").undo(kube)
    assert weights_of(kube.objects["VirtualService", "tenant-a", "canary"]) == [90, 10]
    assert ("VirtualService", "tenant-a", "gone") in kube.objects
    assert Memory.read(tmp_path / "sabotage.json").deeds == []
    scene.ends.close()


def test_what_cannot_be_put_back_is_said_and_stays_remembered(stage, tmp_path):
    kube, scene, heal = stage(shares(v1=90, v2=10))
    Change(do="change", kind="VirtualService", rule="swap_shares").apply(scene)
    kube.replace = Mock(return_value=Mock(ok=False, cause="schema", __str__=lambda _: "422 by schema"))
    with pytest.raises(NotHealed, match="canary could not be put back: 422"):
        heal()
    assert len(Memory.read(tmp_path / "sabotage.json").deeds) == 1


# --- certificates


class CertManager(FakeKube):
    """Issues anew for a Certificate whose issuer is another, as cert-manager does."""

    def put(self, document):
        kept = super().put(document)
        if document["kind"] == "Certificate":
            name = {"tls.crt": kept["spec"]["issuerRef"]["name"]}
            secret = self.objects["Secret", "ai-gateway", "edge"]
            super().put({**secret, "data": secret["data"] | name})
        return kept


def entrance(**annotations):
    metadata = {"name": "edge", "namespace": "ai-gateway", "annotations": annotations}
    return {"kind": "Secret", "metadata": metadata, "data": {"tls.crt": "before", "tls.key": "key", "ca.crt": "ca"}}


def stranger():
    return ForeignCertificate(do="foreign-certificate", namespace="ai-gateway", name="edge", hosts=["localhost"])


def test_a_certificate_that_nobody_keeps_is_replaced_by_hand(stage):
    kube, scene, heal = stage(entrance())
    stranger().apply(scene)
    shown = base64.b64decode(kube.objects["Secret", "ai-gateway", "edge"]["data"]["tls.crt"])
    assert "somebody else" in x509.load_pem_x509_certificate(shown).issuer.rfc4514_string()
    heal()
    assert kube.objects["Secret", "ai-gateway", "edge"]["data"] == entrance()["data"]


def test_a_certificate_that_is_kept_gets_an_issuer_whom_nobody_knows(stage):
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "edge", "namespace": "ai-gateway"},
        "spec": {"issuerRef": {"kind": "ClusterIssuer", "name": "edge"}, "duration": "720h"},
    }
    secret = entrance(**{"cert-manager.io/certificate-name": "edge"})
    kube, scene, heal = stage(secret, certificate, api=CertManager)
    stranger().apply(scene)
    assert kube.spec("Certificate", "edge", "ai-gateway")["issuerRef"] == {"kind": "Issuer", "name": "sabotage"}
    assert kube.objects["Secret", "ai-gateway", "edge"]["data"]["tls.crt"] == "sabotage"
    issuer = kube.spec("Issuer", "sabotage", "ai-gateway")["ca"]["secretName"]
    authority = base64.b64decode(kube.objects["Secret", "ai-gateway", issuer]["data"]["tls.crt"])
    assert x509.load_pem_x509_certificate(authority).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    heal()
    assert kube.spec("Certificate", "edge", "ai-gateway") == certificate["spec"]
    assert kube.objects["Secret", "ai-gateway", "edge"]["data"]["tls.crt"] == "edge"
    assert set(kube.objects) == {("Secret", "ai-gateway", "edge"), ("Certificate", "ai-gateway", "edge")}


def test_a_kind_of_which_there_are_two_is_named_with_its_group():
    assert full_kind({"apiVersion": "cert-manager.io/v1", "kind": "Certificate"}) == "Certificate.cert-manager.io"
    assert full_kind({"apiVersion": "v1", "kind": "Service"}) == "Service"


# --- rules


def test_shares_of_one_version_alone_are_not_swapped():
    document = shares(v1=100, v2=0)
    swap_shares(document)
    assert weights_of(document) == [100, 0]


def test_frozen_shares_stay_with_the_first():
    document = shares(v1=0, v2=100)
    freeze_shares(document)
    assert weights_of(document) == [100, 0]


def limits():
    """A policy with a limit of each kind: per tenant, per JWT, of all together, of tokens."""

    def by(*names):
        return [{"headers": [{"name": name, "type": "Distinct"} for name in names]}]

    rules = [
        {"clientSelectors": by("x-tenant"), "limit": {"requests": 5}},
        {"clientSelectors": by("x-tenant", "x-jwt-sub"), "limit": {"requests": 5}},
        {"limit": {"requests": 5}},
        {"clientSelectors": by("x-tenant", "x-ai-eg-model"), "limit": {"requests": 5}, "cost": {"response": {}}},
    ]
    return {"spec": {"rateLimit": {"global": {"rules": rules}}}}, rules


@pytest.mark.parametrize(("which", "number"), [("tenant", 0), ("jwt", 1), ("global", 2), ("tokens", 3)])
def test_one_limit_is_lifted_and_no_other(which, number):
    policy, rules = limits()
    lift_limit(policy, which)
    assert [rule["limit"]["requests"] > 5 for rule in rules] == [index == number for index in range(4)]


def test_the_limit_per_tenant_becomes_one_of_all_together_as_high_as_it_was():
    policy, rules = limits()
    share_bucket(policy)
    assert [rule["limit"]["requests"] for rule in rules] == [5] * 4
    assert ["RegularExpression" in str(rule.get("clientSelectors")) for rule in rules] == [True, False, False, False]


def test_headers_no_longer_choose():
    path, header = {"path": {"value": "/a"}}, {"headers": [{"name": "x"}]}
    route = {"spec": {"rules": [{"matches": [path, {**path, **header}]}]}}
    ignore_headers(route)
    assert route["spec"]["rules"][0]["matches"] == [path]
    rules = {"spec": {"http": [{"match": [header], "route": "pinned"}, {"route": "shares"}]}}
    ignore_headers(rules)
    assert rules["spec"]["http"] == [{"route": "shares"}]


def test_a_canary_and_the_old_version_get_each_others_share() -> None:
    def left(predictor: dict[str, object]) -> object:
        document = {"spec": {"predictor": dict(predictor)}}
        swap_canary(document)
        return document["spec"]["predictor"]

    assert left({"canaryTrafficPercent": 10}) == {"canaryTrafficPercent": 90}
    assert left({"canaryTrafficPercent": 0}) == {"canaryTrafficPercent": 0}
    assert left({}) == {}


def test_a_namespace_or_role_is_forgotten_in_both_directions() -> None:
    def peer(**labels: str) -> dict[str, object]:
        return {"namespaceSelector": {"matchLabels": labels}}

    knative, registry = peer(**{"kubernetes.io/metadata.name": "knative-serving"}), peer(role="model-registry")
    own: dict[str, object] = {"podSelector": {}}
    spec = {
        "ingress": [{"from": [own]}, {"from": [knative]}],
        "egress": [{"to": [own]}, {"to": [knative]}, {"to": [registry]}],
    }
    policy = {"spec": spec}
    forget_namespace(policy, "knative-serving")
    assert policy["spec"] == {"ingress": [{"from": [own]}], "egress": [{"to": [own]}, {"to": [registry]}]}
    forget_namespace(policy, "model-registry")
    assert policy["spec"]["egress"] == [{"to": [own]}]
