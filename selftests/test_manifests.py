"""Manifests: values filled in, mistakes named."""

from pathlib import Path

import pytest
import yaml

from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.manifests import load
from inferencebox.paths import manifests_dir


def test_values_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Namespace\nmetadata: {name: ${tenant}}\n")
    assert load(tmp_path / "a.yaml", {"tenant": "tenant-a"}) == [
        {"kind": "Namespace", "metadata": {"name": "tenant-a"}}
    ]


def test_files_of_a_folder_come_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(f"kind: {name}\n---\n")
    assert [document["kind"] for document in load(tmp_path)] == ["a", "b"]


def test_a_value_that_is_missing_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: ${what}\n")
    with pytest.raises(SetupProblem, match=r"a\.yaml has \$\{what\}"):
        load(tmp_path / "a.yaml")


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: {")
    with pytest.raises(SetupProblem, match=r"a\.yaml is not valid YAML"):
        load(tmp_path / "a.yaml")


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("limits", ["strict", "demo"])
def test_every_shipped_policy_renders_for_every_set_of_limits(limits: str) -> None:
    documents = [document for batch in policies.batches(limits) for document in batch]
    assert all({"apiVersion", "kind", "metadata"} <= document.keys() for document in documents)


def test_no_client_can_say_what_the_answer_about_its_key_says() -> None:
    documents = [document for batch in policies.batches("strict") for document in batch]
    told = {
        name
        for document in documents
        if document["kind"] == "SecurityPolicy" and (asked := document["spec"].get("extAuth"))
        for name in asked["http"]["headersToBackend"]
    }
    (clients,) = (document for document in documents if document["kind"] == "ClientTrafficPolicy")
    assert told == {"x-tenant", "x-published-model", "x-publication"}
    assert told <= set(clients["spec"]["headers"]["earlyRequestHeaders"]["remove"])


def test_no_two_shipped_objects_are_the_same_object() -> None:
    documents = [document for batch in policies.batches("strict") for document in batch]
    names = [(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in documents]
    assert not [name for name in names if names.count(name) > 1]


def test_the_strict_limits_are_those_of_the_contract() -> None:
    assert policies.limits("strict") == {
        "tenant_requests_per_minute": "100",
        "jwt_requests_per_minute": "500",
        "requests_per_hour": "10000",
        "tokens_per_hour": "10000",
    }


def test_tenant_b_has_no_model_at_bootstrap() -> None:
    data = yaml.safe_load((manifests_dir() / "models" / "models.yaml").read_text())
    assert "tenant-b" not in {each["tenant"] for each in data["bootstrap"]}
