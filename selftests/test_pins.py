"""What runs is remembered by its pins, and another release is held against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from inferencebox.errors import SetupProblem
from inferencebox.providers import pins
from inferencebox.providers.kind.up import require_same_nodes
from inferencebox.providers.kubernetes import state
from inferencebox.providers.local import upgrade
from inferencebox.providers.local.platform import LocalPlatform
from inferencebox.providers.local.supervisor import Program
from inferencebox.release import DEFAULT_RELEASE, Release


@pytest.fixture
def now() -> Release:
    return Release.load(DEFAULT_RELEASE)


def other(folder: Path, **changes: Mapping[str, Any]) -> Release:
    """The default release, with something otherwise."""
    file = folder / "other.yaml"
    file.write_text(yaml.safe_dump({"based_on": DEFAULT_RELEASE, "name": "other", **changes}))
    return Release.load(file)


def test_a_release_that_was_written_down_is_the_same(now: Release, tmp_path: Path) -> None:
    pins.write(pins.path(tmp_path), now)
    assert pins.read(tmp_path, "nothing-of-the-kind") == now


def test_a_platform_of_another_machine_is_known_by_the_name_of_its_release(now: Release, tmp_path: Path) -> None:
    assert pins.read(tmp_path, DEFAULT_RELEASE) == now


def test_another_version_is_another_layer(now: Release, tmp_path: Path) -> None:
    after = other(tmp_path, layers={"loki": {"version": "v3.7.9"}, "redis": {"version": "7.2"}})
    assert pins.changed_layers(now, after) == ["redis", "loki"]
    assert pins.changed_layers(now, now) == []


def test_a_layer_that_is_gone_or_new_is_another(now: Release, tmp_path: Path) -> None:
    after = other(tmp_path, layers={"loki": None, "more": {"version": "v1", "purpose": "more"}})
    assert pins.changed_layers(now, after) == ["loki", "more"]


def test_words_about_a_layer_do_not_make_it_another(now: Release, tmp_path: Path) -> None:
    words = {"purpose": "words", "programs": {"loki": {"purpose": "words", "expected_seconds": 1}}}
    assert pins.changed_layers(now, other(tmp_path, layers={"loki": words})) == []


class TestLocal:
    def test_the_limiter_and_its_counters_are_replaced(self, now: Release, tmp_path: Path) -> None:
        after = other(tmp_path, layers={"ratelimit": {"version": "v9"}, "redis": {"version": "9"}})
        assert upgrade.wanted(now, after) == ["ratelimit", "redis-server"]

    def test_what_never_runs_here_does_not_matter(self, now: Release, tmp_path: Path) -> None:
        after = other(tmp_path, layers={"kserve": {"version": "v9"}, "metrics-server": None})
        assert upgrade.wanted(now, after) == []

    @pytest.mark.parametrize("change", [{"version": "v9"}, None])
    def test_what_traffic_can_not_do_without_is_refused(
        self, now: Release, tmp_path: Path, change: Mapping[str, str] | None
    ) -> None:
        after = other(tmp_path, layers={"envoy": change, "ratelimit": {"version": "v9"}})
        with pytest.raises(SetupProblem, match="a local platform that is up keeps its envoy: the release other has"):
            upgrade.wanted(now, after)


@dataclass
class Box:
    """A platform whose parts are noted, not run; programs of these versions never get ready."""

    broken: str = ""
    known: dict[str, str] = field(default_factory=dict)
    did: list[str] = field(default_factory=list)

    @property
    def parts(self) -> "Box":
        return self

    @property
    def supervisor(self) -> "Box":
        return self

    def add(self, programs: Sequence[Program]) -> None:
        self.known |= {program.name: program.argv[0] for program in programs}

    def stop(self, name: str) -> None:
        self.did.append(f"stop {name}")

    def start(self, name: str) -> None:
        self.did.append(f"start {self.known[name]}")
        if self.known[name] == self.broken:
            raise SetupProblem(f"{name} does not stay up", "read its log")


class TestReplacing:
    BEFORE = (Program("redis", ["redis-7"]), Program("ratelimit", ["ratelimit-1"]), Program("envoy-gateway", ["eg-1"]))
    AFTER = (Program("redis", ["redis-7"]), Program("ratelimit", ["ratelimit-2"]), Program("envoy-gateway", ["eg-1"]))

    def replace(self, box: Box) -> None:
        upgrade.replace(cast(LocalPlatform, box), ["ratelimit"], self.BEFORE, self.AFTER)

    def test_the_other_program_runs_and_nothing_else_is_touched(self) -> None:
        box = Box()
        self.replace(box)
        assert box.did == ["stop ratelimit", "start ratelimit-2"]

    def test_one_that_does_not_get_ready_leaves_the_old_one_running(self) -> None:
        box = Box(broken="ratelimit-2")
        with pytest.raises(SetupProblem, match="ratelimit does not stay up"):
            self.replace(box)
        assert box.did == ["stop ratelimit", "start ratelimit-2", "stop ratelimit", "start ratelimit-1"]


class TestKind:
    @pytest.fixture
    def home(self, tmp_path: Path, now: Release) -> Path:
        home = tmp_path / "mine"
        home.mkdir()
        state.write(home, state.Record("kind", now.name))
        pins.write(pins.path(home), now)
        return home

    def test_nodes_stay_as_they_are(self, home: Path, tmp_path: Path) -> None:
        after = other(tmp_path, images={"coredns": {"reference": "registry.k8s.io/coredns/coredns:v9"}})
        with pytest.raises(SetupProblem, match="the nodes of the platform mine keep their coredns"):
            require_same_nodes(home, after)

    def test_layers_may_change(self, home: Path, tmp_path: Path) -> None:
        require_same_nodes(home, other(tmp_path, images={"ratelimit": {"reference": "docker.io/ratelimit:v9"}}))

    def test_where_there_is_no_platform_nothing_stays(self, tmp_path: Path, now: Release) -> None:
        require_same_nodes(tmp_path, now)
