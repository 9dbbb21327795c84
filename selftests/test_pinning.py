"""``ibox releases pin``: digests come from registries, and nothing else of a release's file changes."""

import difflib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_registry import Registry, layer, serving

from inferencebox import command_line
from inferencebox.paths import manifests_dir
from inferencebox.pinning import ReleaseFile
from inferencebox.programs import registry as client
from inferencebox.release import OUR_IMAGES, Release

MOVED = f"sha256:{'a' * 64}"
IMAGE = '        image: {reference: "docker.io/grafana/loki:3.7.8", path: usr/bin/loki, digest: '
FILE = """# what this release is for
name: own
based_on: "2026.11"
about: a test

layers:
  loki:
    programs:
      loki:
        image: {reference: "docker.io/grafana/loki:3.7.8", path: usr/bin/loki, digest: null}  # also an image

images:
  # of kind's release notes
  node:
    reference: "docker.io/kindest/node:v1"  # the node
    digest: NODE
  loki: {reference: "docker.io/grafana/loki:3.7.8"}
  redis:
    reference: docker.io/library/redis:7
    expected_seconds: 5
  client: {reference: "docker.io/inference-in-a-box/client:0.1.0"}
  suite: null
"""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as running:
        for tag in ("3.7.8", "v1", "7"):
            running.tags[tag] = running.add_index(running.add_image([layer({"etc/tag": tag.encode()})]))
        yield running


@pytest.fixture
def file(registry: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(FILE.replace("NODE", registry.tags["v1"]))
    return path


def pin(registry: Registry, file: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = command_line.ibox("releases", "pin", str(file), *flags)
    mirror = {client.MIRROR_VARIABLE: f"127.0.0.1:{registry.port}"}
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **mirror}, check=False)


def test_digests_are_shown_and_only_written_if_that_is_asked_for(registry: Registry, file: Path) -> None:
    before = file.read_text()
    done = pin(registry, file)
    assert done.returncode == 0, done.stderr
    assert f"docker.io/grafana/loki:3.7.8: {registry.tags['3.7.8']}" in done.stdout
    assert "3 images, 1 had a digest, 2 would get one" in done.stdout
    assert file.read_text() == before


def test_they_are_written_and_everything_else_stays_as_it_is(registry: Registry, file: Path) -> None:
    before = file.read_text()
    assert pin(registry, file, "--write").returncode == 0
    loki, redis = registry.tags["3.7.8"], registry.tags["7"]
    changed = [line for line in difflib.ndiff(before.splitlines(), file.read_text().splitlines()) if line[0] in "+-"]
    assert changed == [
        f"- {IMAGE}null}}  # also an image",
        f"+ {IMAGE}{loki}}}  # also an image",
        '-   loki: {reference: "docker.io/grafana/loki:3.7.8"}',
        f'+   loki: {{reference: "docker.io/grafana/loki:3.7.8", digest: {loki}}}',
        f"+     digest: {redis}",
    ]
    release = Release.load(file)
    assert (release.images["redis"].digest, release.images["redis"].expected_seconds) == (redis, 5)
    assert release.programs["loki"].image is not None
    assert release.programs["loki"].image.digest == loki


def test_done_again_it_changes_nothing(registry: Registry, file: Path) -> None:
    pin(registry, file, "--write")
    before = file.read_text()
    done = pin(registry, file, "--write")
    assert (done.returncode, file.read_text()) == (0, before)
    assert "3 had a digest, 0 got one" in done.stdout


def test_a_tag_that_has_moved_is_refused_with_both_digests_and_nothing_is_written(
    registry: Registry, file: Path
) -> None:
    file.write_text(file.read_text().replace(registry.tags["v1"], MOVED))
    before = file.read_text()
    done = pin(registry, file, "--write")
    assert done.returncode == 2
    assert f"docker.io/kindest/node:v1 is {MOVED} here and {registry.tags['v1']} there" in done.stderr
    assert file.read_text() == before


def test_what_no_registry_gives_is_left_as_it_is_named_and_the_exit_code_says_so(
    registry: Registry, file: Path
) -> None:
    del registry.tags["7"]
    done = pin(registry, file, "--write")
    assert done.returncode == 2
    assert "no registry told the digest of docker.io/library/redis:7 (" in done.stderr
    assert "status 404" in done.stderr
    assert done.stderr.count("\n") == 1
    release = Release.load(file)
    assert release.images["loki"].digest == registry.tags["3.7.8"]
    assert release.images["redis"].digest is None


def test_a_registry_that_does_not_answer_is_asked_once(registry: Registry, file: Path) -> None:
    registry.refuse = "/v2/"
    assert pin(registry, file).returncode == 2
    assert registry.asked == ["/v2/"]


@pytest.mark.parametrize("name", Release.names())
def test_all_that_a_shipped_release_names_can_be_written_and_nothing_else_changes(name: str, tmp_path: Path) -> None:
    file = ReleaseFile.read(manifests_dir() / "releases" / f"{name}.yaml")
    new = file.with_digests(dict.fromkeys(file.references, MOVED))
    assert new.pinned == set(file.references)

    def without_digests(found: object) -> object:
        if isinstance(found, dict):
            return {key: without_digests(value) for key, value in found.items() if key != "digest"}
        return found

    assert without_digests(yaml.safe_load(new.text)) == without_digests(yaml.safe_load(file.text))
    assert not any(reference.startswith(OUR_IMAGES) for reference in file.references)
    comments = [text.count("#") for text in (file.text, new.text)]
    assert comments[0] == comments[1]
