"""What a killed run left on a platform is removed by the next; what a living run uses, and what others made, is not."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from inferencebox.inventory import FOLDER, Inventory, MadeObject, clear_away
from inferencebox.platform import WorkloadSpec
from inferencebox.probes.kubernetes import FIELD_MANAGER
from selftests import fake_provider
from selftests.fake_kube import FakeKube


class FakePlatform:
    """Remembers which replicas were taken away."""

    def __init__(self, *there: WorkloadSpec) -> None:
        self.there = list(there)

    def workloads(self) -> list[WorkloadSpec]:
        return list(self.there)

    def remove_workloads(self, workloads: Sequence[WorkloadSpec]) -> None:
        self.there = [each for each in self.there if each not in workloads]


ROUTE = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
ROUTES = "HTTPRoute.gateway.networking.k8s.io"


def route(name: str) -> dict[str, Any]:
    return {**ROUTE, "metadata": {"name": name, "namespace": "tenant-a"}}


def kube_with(*names: str) -> FakeKube:
    return FakeKube(*map(route, names))


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


def note(inventory: Inventory, kube: FakeKube, name: str, manager: str = FIELD_MANAGER, is_new: bool = True) -> None:
    inventory.note_object(kube.get(ROUTES, name, "tenant-a").object, manager, is_new)


def die(inventory: Inventory) -> None:
    """The kernel closes a dead process's files, and with them its lock."""
    assert inventory._file is not None
    os.close(inventory._file)


def cleared(home: Path, kube: FakeKube, platform: FakePlatform) -> list[str]:
    return clear_away(home, platform, lambda: kube)  # type: ignore[arg-type, return-value]


def test_kinds_of_one_name_are_told_apart_by_their_group() -> None:
    assert MadeObject("HTTPRoute", ROUTE["apiVersion"], "tenant-a", "own").resource == ROUTES


def test_what_a_killed_run_made_is_removed(tmp_path: Path, inventory: Inventory) -> None:
    kube = kube_with("own", "shipped")
    note(inventory, kube, "own")
    die(inventory)
    assert cleared(tmp_path, kube, FakePlatform()) == ["HTTPRoute tenant-a/own"]
    assert [name for _, _, name in kube.objects] == ["shipped"]
    assert not list((tmp_path / FOLDER).iterdir())


def test_what_several_killed_processes_made_is_removed_by_one_look(tmp_path: Path) -> None:
    kube, looks = kube_with("one", "two"), []
    for number, name in enumerate(("one", "two")):
        inventory = Inventory(tmp_path)
        note(inventory, kube, name)
        die(inventory)
        (file,) = (tmp_path / FOLDER).glob(f"{os.getpid()}.jsonl")
        file.rename(file.with_name(f"left-{number}.jsonl"))
    removed = clear_away(tmp_path, FakePlatform(), lambda: looks.append(1) or kube)  # type: ignore[arg-type, func-returns-value, return-value]
    assert sorted(removed) == ["HTTPRoute tenant-a/one", "HTTPRoute tenant-a/two"]
    assert len(looks) == 1


def test_what_a_living_run_made_stays(tmp_path: Path, inventory: Inventory) -> None:
    kube = kube_with("own")
    note(inventory, kube, "own")
    assert cleared(tmp_path, kube, FakePlatform()) == []
    assert kube.get(ROUTES, "own", "tenant-a").ok


def test_a_run_that_ended_in_good_order_leaves_no_inventory(tmp_path: Path, inventory: Inventory) -> None:
    note(inventory, kube_with("own"), "own")
    inventory.drop()
    assert not list((tmp_path / FOLDER).iterdir())


def test_what_somebody_made_in_its_place_stays(tmp_path: Path, inventory: Inventory) -> None:
    kube = kube_with("own")
    note(inventory, kube, "own")
    die(inventory)
    kube.objects["HTTPRoute", "tenant-a", "own"]["metadata"]["uid"] = "another"
    assert cleared(tmp_path, kube, FakePlatform()) == []
    assert kube.get(ROUTES, "own", "tenant-a").ok


def test_a_change_to_what_the_platform_has_is_no_thing_made(tmp_path: Path, inventory: Inventory) -> None:
    note(inventory, kube_with("shipped"), "shipped", is_new=False)
    assert not (tmp_path / FOLDER).exists()


def test_a_part_of_a_shared_object_is_given_up_and_the_object_stays(tmp_path: Path, inventory: Inventory) -> None:
    kube = kube_with("shared")
    applied: list[tuple[Any, str]] = []
    kube.apply = lambda documents, manager="": applied.append((documents[0], manager)) or []  # type: ignore[assignment, func-returns-value, misc, index, return-value]
    note(inventory, kube, "shared", manager="x", is_new=False)
    die(inventory)
    assert cleared(tmp_path, kube, FakePlatform()) == ["x's part of HTTPRoute tenant-a/shared"]
    assert applied == [({**ROUTE, "metadata": {"name": "shared", "namespace": "tenant-a"}}, "x")]


def test_replicas_that_a_killed_run_added_are_taken_away(tmp_path: Path, inventory: Inventory) -> None:
    own, other = WorkloadSpec("tenant-a", "own", "own"), WorkloadSpec("tenant-a", "iris", "iris")
    platform = FakePlatform(own, other)
    inventory.adds([own])
    die(inventory)
    assert cleared(tmp_path, FakeKube(), platform) == ["Workload tenant-a/own"]
    assert platform.there == [other]


def test_replicas_are_noted_before_the_platform_starts_them(
    tmp_path: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = WorkloadSpec("tenant-a", "own", "own")
    handle = fake_provider.FakePlatform("default")
    handle.observe(inventory)
    monkeypatch.setattr(handle, "_add_workloads", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        handle.add_workloads([own])
    die(inventory)
    assert cleared(tmp_path, FakeKube(), FakePlatform(own)) == ["Workload tenant-a/own"]


def test_half_a_line_of_a_killed_writer_hides_nothing_before_it(tmp_path: Path, inventory: Inventory) -> None:
    kube = kube_with("own")
    note(inventory, kube, "own")
    die(inventory)
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_text(file.read_text() + json.dumps({"kind": "HTTP"})[:9])
    assert cleared(tmp_path, kube, FakePlatform()) == ["HTTPRoute tenant-a/own"]
