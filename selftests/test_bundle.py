"""Bundles: complete or not there, verified to the last file, and all that the other machine needs."""

import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferencebox import bundle
from inferencebox.errors import SetupProblem
from inferencebox.programs.store import Facts, Store
from inferencebox.release import DEFAULT_RELEASE, Release

Usage = namedtuple("Usage", "total used free")
ENTRIES = {"etcd": "0" * 20, "image-pause": "1" * 20, "files-istio": "2" * 20}


def publish(store: Store, name: str, key: str) -> Path:
    with store.workspace(name, 0) as work:
        made = work / "out"
        (made / "a folder").mkdir(parents=True)
        (made / "a folder" / name).write_text(f"this is {name}")
        (made / "link").symlink_to("a folder")
        return store.publish(key, made, Facts(name, "v1", "go", "", 1, {})).path


@pytest.fixture
def release() -> Release:
    return Release.load(DEFAULT_RELEASE)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The connected machine's cache, in which everything is made already."""
    monkeypatch.setenv("IBOX_CACHE", str(tmp_path / "connected"))
    here = Store(tmp_path / "connected")
    paths = [publish(here, name, key) for name, key in ENTRIES.items()]
    monkeypatch.setattr(bundle, "_everything", lambda *arguments: _once(paths))
    return here


def _once(paths: list[Path]) -> Iterator[Path]:
    yield from paths


@pytest.fixture
def made(tmp_path: Path, release: Release) -> Path:
    target = tmp_path / "a bundle"
    bundle.create(target, release, "kind")
    return target


def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("IBOX_CACHE", str(tmp_path / "offline"))
    return Store(tmp_path / "offline")


def some_file(made: Path) -> Path:
    return made / "entries/etcd" / ENTRIES["etcd"] / "files/a folder/etcd"


def test_what_was_bundled_is_found_on_the_other_machine(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = offline(tmp_path, monkeypatch)
    contents = bundle.load(made)
    assert contents.entries == len(ENTRIES)
    for name, key in ENTRIES.items():
        entry = other.find(name, key)
        assert entry
        assert (entry.path / "link" / name).read_text() == f"this is {name}"


def test_loading_twice_changes_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path, monkeypatch)
    assert bundle.load(made) == bundle.load(made)


def test_checksums_can_be_checked_without_us(made: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made, check=True)


def test_a_bundle_as_it_was_made_is_verified(made: Path, release: Release) -> None:
    assert bundle.verify(made).release == release.name


def change(made: Path) -> None:
    some_file(made).write_text("something else")


def lose(made: Path) -> None:
    some_file(made).unlink()


def add(made: Path) -> None:
    some_file(made).with_name("stowaway").write_text("x")


def alter_the_release(made: Path) -> None:
    with (made / "release.yaml").open("a") as file:
        file.write("# changed\n")


DAMAGES = {
    "has another checksum": change,
    "is missing": lose,
    "is not of it": add,
    "release.yaml in": alter_the_release,
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_bundle_that_is_not_as_it_was_made_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    other = offline(tmp_path, monkeypatch)
    DAMAGES[said](made)
    for refused in (bundle.verify, bundle.load):
        with pytest.raises(SetupProblem, match=said):
            refused(made)
    assert not list(other.root.glob("store/*"))


def test_a_bundle_with_new_checksums_for_a_changed_program_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry has a manifest of its own, which says what was made."""
    other = offline(tmp_path, monkeypatch)
    change(made)
    names = [line.partition("  ")[2] for line in (made / "SHA256SUMS").read_text().splitlines()]
    sums = subprocess.run(["sha256sum", *names], cwd=made, check=True, capture_output=True, text=True).stdout
    (made / "SHA256SUMS").write_text(sums)
    with pytest.raises(SetupProblem, match=r"etcd in .* is damaged"):
        bundle.load(made)
    assert other.find("etcd", ENTRIES["etcd"]) is None


def test_an_interrupted_bundle_is_no_bundle_and_is_gone_on_with(
    tmp_path: Path, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, copies = tmp_path / "bundle", []
    copy = bundle._copy

    def tired(home: Path, to: Path) -> None:
        if copies:
            raise KeyboardInterrupt
        copies.append(home)
        copy(home, to)

    monkeypatch.setattr(bundle, "_copy", tired)
    with pytest.raises(KeyboardInterrupt):
        bundle.create(target, release, "kind")
    with pytest.raises(SetupProblem, match="is no bundle, or it is not finished"):
        bundle.verify(target)
    again = []
    monkeypatch.setattr(bundle, "_copy", lambda home, to: (again.append(home), copy(home, to)))
    assert bundle.create(target, release, "kind").entries == len(ENTRIES)
    assert len(again) == len(ENTRIES) - 1


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, release: Release) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(SetupProblem, match="is not empty and no bundle"):
        bundle.create(tmp_path / "mine", release, "kind")


def test_a_disk_that_is_nearly_full_is_said_before_anything_is_copied(
    tmp_path: Path, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 90, 10))
    with pytest.raises(SetupProblem, match=r"free on the disk of .*name a folder on a larger disk"):
        bundle.create(tmp_path / "bundle", release, "kind")
    assert not (tmp_path / "bundle").exists()
