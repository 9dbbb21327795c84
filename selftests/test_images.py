"""Container images: the same ingredients give the same bytes, and nothing else than what is pinned gets in."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_registry import Registry, layer, serving
from programs_kit import TOOLCHAIN, FakeGo, write_pins

from inferencebox import images
from inferencebox.errors import SetupProblem
from inferencebox.images import archive, recipes, sources
from inferencebox.images.python import Python
from inferencebox.images.recipes import Recipes
from inferencebox.images.sets import LockedDistributions
from inferencebox.images.tree import Tree
from inferencebox.layers.catalogue import layers
from inferencebox.layers.choice import sparable
from inferencebox.programs import provision, pypi
from inferencebox.programs import registry as client
from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.providers.kind import node
from inferencebox.release import DEFAULT_RELEASE, Release

Usage = namedtuple("Usage", "total used free")
REFERENCE = "registry.example.org/a/tool:v1.2.3"
RECIPES = {
    "packages": {"none": ["none"]},
    "python": {"none": {"group": "none"}},
    "accounts": {"root": 0, "somebody": 1000},
    "images": {
        "tool": {
            "programs": {"one": "/bin/one"},
            "services": ["greeter"],
            "files": {"/etc/tool/settings": "project:settings", "/crds": "tools:crds"},
            "folders": {"/var/tool": "777"},
            "links": {"/usr/bin/alias": "one"},
            "user": "1000",
            "entrypoint": ["/bin/one"],
            "environment": {"COLOUR": "blue"},
        }
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one program, one service and one recipe, and a machine that builds with a ``go`` of ours."""
    home = tmp_path / "project"
    write_pins(home / "programs")
    (home / "settings").write_text("loud: true\n")
    package = home / "services/greeter/src/greeter"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def main():\n    print('hello')\n")
    pyproject = '[project]\nname = "greeter"\n[project.scripts]\ngreet = "greeter:main"\n'
    (home / "services/greeter/pyproject.toml").write_text(pyproject)
    folders = os.environ["PATH"].split(os.pathsep)
    monkeypatch.setenv("PATH", os.pathsep.join(folder for folder in folders if not shutil.which("go", path=folder)))
    monkeypatch.setenv("IBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(provision, "programs_dir", lambda: home / "programs")
    monkeypatch.setattr(sources, "project_root", lambda: home)
    monkeypatch.setattr(recipes, "known", lambda: Recipes.model_validate(RECIPES))
    monkeypatch.setattr(pypi, "installer", list)
    (tmp_path / "bin/module/crds").mkdir(parents=True)
    (tmp_path / "bin/module/crds/a.yaml").write_text("kind: A\n")
    return home


@pytest.fixture
def go(project: Path, tmp_path: Path) -> FakeGo:
    return FakeGo(tmp_path / "bin")


def chosen(tmp_path: Path, digest: str | None = None) -> Release:
    tools = {
        "version": "v1.2.3",
        "purpose": "a test",
        "go": {"folder": "tools", "module": "example.org/tools", "files": ["crds/*.yaml"]},
        "programs": {"one": {"purpose": "a test", "package": "example.org/tools/one"}},
    }
    image = {"reference": REFERENCE, "digest": digest}
    content = {"name": "r", "about": "a test", "toolchain": TOOLCHAIN, "layers": {"tools": tools}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**content, "images": {"tool": image}}))
    return Release.load(path)


def provide(tmp_path: Path, digest: str | None = None) -> Path:
    return images.provide(chosen(tmp_path, digest), ["tool"])["tool"]


def unpacked(path: Path) -> dict[str, tarfile.TarInfo]:
    """What the image has, by path."""
    found: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(path) as outer:
        for name in json.load(outer.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as inner:
                found.update({member.name: member for member in inner})
    return found


def content(path: Path, name: str) -> bytes:
    with tarfile.open(path) as outer:
        for one in json.load(outer.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(one)) as inner:
                if name in inner.getnames():
                    return inner.extractfile(name).read()
    raise KeyError(name)


def configuration(path: Path) -> dict:
    with tarfile.open(path) as outer:
        name = json.load(outer.extractfile("manifest.json"))[0]["Config"]
        return json.load(outer.extractfile(name))


def test_an_image_has_what_its_recipe_says(go: FakeGo, tmp_path: Path) -> None:
    path = provide(tmp_path)
    there = unpacked(path)
    assert there["usr/bin/one"].mode == 0o755
    assert there["bin"].linkname == "usr/bin"
    assert there["usr/bin/alias"].linkname == "one"
    assert there["var/tool"].mode == 0o777
    assert content(path, "etc/tool/settings") == b"loud: true\n"
    assert content(path, "crds/a.yaml") == b"kind: A\n"
    assert b"somebody:x:1000" in content(path, "etc/passwd")
    assert b"from greeter import main" in content(path, "usr/local/bin/greet")
    config = configuration(path)["config"]
    assert (config["User"], config["Entrypoint"], config["Labels"]) == (
        "1000",
        ["/bin/one"],
        {archive.ASSEMBLED: "true"},
    )
    assert "COLOUR=blue" in config["Env"]


def test_an_archive_names_its_image_and_describes_its_layers(go: FakeGo, tmp_path: Path) -> None:
    path = provide(tmp_path)
    with tarfile.open(path) as outer:
        (manifest,) = json.load(outer.extractfile("manifest.json"))
        layers = [hashlib.sha256(outer.extractfile(name).read()).hexdigest() for name in manifest["Layers"]]
    assert manifest["RepoTags"] == [REFERENCE]
    assert configuration(path)["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in layers]


def test_the_same_ingredients_give_the_same_bytes(go: FakeGo, project: Path, tmp_path: Path) -> None:
    first = provide(tmp_path).read_bytes()
    shutil.rmtree(tmp_path / "cache")
    os.utime(project / "settings", (1, 1))
    assert provide(tmp_path).read_bytes() == first


def test_a_second_run_needs_neither_compiler_nor_network(go: FakeGo, tmp_path: Path) -> None:
    first = provide(tmp_path)
    (tmp_path / "bin/go").unlink()
    assert provide(tmp_path) == first


@pytest.mark.parametrize("changed", ["settings", "services/greeter/src/greeter/__init__.py", "programs/tools/go.sum"])
def test_another_ingredient_is_another_image(go: FakeGo, project: Path, tmp_path: Path, changed: str) -> None:
    first = provide(tmp_path)
    with (project / changed).open("a") as file:
        file.write("# more\n")
    assert provide(tmp_path) != first


def test_what_python_leaves_behind_is_no_ingredient(go: FakeGo, project: Path, tmp_path: Path) -> None:
    first = provide(tmp_path)
    cache = project / "services/greeter/src/greeter/__pycache__"
    cache.mkdir()
    (cache / "greeter.pyc").write_bytes(b"compiled")
    assert provide(tmp_path) == first


def test_a_program_on_path_never_gets_into_an_image(go: FakeGo, tmp_path: Path) -> None:
    stranger = tmp_path / "bin/one"
    stranger.write_text("#!/bin/sh\necho stranger\n")
    stranger.chmod(0o755)
    assert b"built example.org/tools/one" in content(provide(tmp_path), "usr/bin/one")


def test_a_damaged_archive_is_refused(go: FakeGo, tmp_path: Path) -> None:
    path = provide(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SetupProblem, match="image-tool in the cache is not what was put there"):
        provide(tmp_path)


def test_a_disk_that_is_nearly_full_is_said_before_anything_is_made(
    go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 100 << 30, 1 << 20))
    with pytest.raises(SetupProblem, match=r"0\.0 GB free on the disk of .*make room"):
        provide(tmp_path)
    assert not go.builds()


KILLED = """
import sys, time
from pathlib import Path
from inferencebox.images import archive
from inferencebox.images.sets import LockedDistributions
from inferencebox.images.tree import Tree
from inferencebox.programs.store import Facts, Store

store = Store(Path(sys.argv[1]))
with store.lock("image-tool", lambda: None), store.workspace("image-tool", 0) as work:
    (work / "out").mkdir()
    tree = Tree()
    tree.write("/etc/a", "a")
    archive.assemble(work / "out" / "image.tar", "a:1", [tree], {})
    print("made", flush=True)
    time.sleep(60)
"""


def test_a_run_killed_in_the_middle_leaves_nothing_half_done(go: FakeGo, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", KILLED, cache], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "made\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((cache / "work").iterdir())
    began = time.monotonic()
    assert content(provide(tmp_path), "usr/bin/one")
    assert not list((cache / "work").iterdir())
    assert time.monotonic() - began < 30


@pytest.fixture
def unasked() -> Iterator[None]:
    """A run in which no registry has been asked yet."""
    for answers in (client.probe, client.why_not):
        answers.cache_clear()
    yield
    for answers in (client.probe, client.why_not):
        answers.cache_clear()


@pytest.fixture
def registry(unasked: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with serving() as running:
        monkeypatch.setenv(client.MIRROR_VARIABLE, f"127.0.0.1:{running.port}")
        yield running


def test_an_image_with_a_digest_is_pulled_as_it_is(registry: Registry, go: FakeGo, tmp_path: Path) -> None:
    digest = registry.add_index(registry.add_image([layer({"usr/bin/one": b"theirs"})]))
    path = provide(tmp_path, digest)
    assert content(path, "usr/bin/one") == b"theirs"
    assert configuration(path) == {"os": "linux"}
    assert not go.builds()


def test_what_a_registry_sends_instead_is_refused(registry: Registry, go: FakeGo, tmp_path: Path) -> None:
    digest = registry.add_image([layer({"usr/bin/one": b"theirs"})])
    registry.blobs[digest] = registry.blobs[registry.add_image([layer({"usr/bin/one": b"evil"})])]
    with pytest.raises(SetupProblem, match="the registry sent something else than"):
        provide(tmp_path, digest)


def test_without_a_registry_in_reach_it_is_put_together(
    unasked: None, go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.MIRROR_VARIABLE, "127.0.0.1:1")
    assert content(provide(tmp_path, f"sha256:{'0' * 64}"), "usr/bin/one").startswith(b"#!/bin/sh")


def test_an_image_without_recipe_and_digest_is_not_to_be_had(
    go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "known", lambda: Recipes.model_validate({**RECIPES, "images": {}}))
    with pytest.raises(SetupProblem, match=r"image-tool v1\.2\.3 is not to be had"):
        provide(tmp_path)


@pytest.fixture
def only_in_a_registry(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "known", lambda: Recipes.model_validate({**RECIPES, "images": {}}))


def test_an_image_that_can_be_put_together_has_no_obstacle_and_nobody_is_asked(
    registry: Registry, go: FakeGo, tmp_path: Path
) -> None:
    assert images.obstacle(chosen(tmp_path, f"sha256:{'0' * 64}"), "tool") is None
    assert registry.asked == []


def test_one_that_its_registry_gives_has_none_and_the_registry_is_asked_once(
    registry: Registry, only_in_a_registry: None, tmp_path: Path
) -> None:
    release = chosen(tmp_path, registry.add_image([layer({"usr/bin/one": b"theirs"})]))
    assert images.obstacle(release, "tool") is None
    asked = list(registry.asked)
    assert images.obstacle(release, "tool") is None
    assert registry.asked == asked


def test_a_registry_that_gives_a_token_to_everybody_is_asked_with_one(
    registry: Registry, only_in_a_registry: None, tmp_path: Path
) -> None:
    registry.wants_token = True
    digest = registry.add_image([layer({"usr/bin/one": b"theirs"})])
    assert images.obstacle(chosen(tmp_path, digest), "tool") is None
    assert content(provide(tmp_path, digest), "usr/bin/one") == b"theirs"
    registry.tags["v1.2.3"] = digest
    assert client.digest_of(REFERENCE) == digest


def test_one_that_the_cache_has_needs_no_registry(
    registry: Registry, only_in_a_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = chosen(tmp_path, registry.add_image([layer({"usr/bin/one": b"theirs"})]))
    images.provide(release, ["tool"])
    monkeypatch.setenv(client.MIRROR_VARIABLE, "127.0.0.1:1")
    assert images.obstacle(release, "tool") is None


def test_one_that_an_older_release_does_not_name_cannot_be_had(project: Path, tmp_path: Path) -> None:
    assert images.obstacle(chosen(tmp_path), "grafana") == "the release r names no image grafana"


@pytest.mark.parametrize(
    ("digest", "refuse", "why"),
    [
        (None, "", "the release r has no digest for it"),
        (f"sha256:{'0' * 64}", "", "cannot be pulled (status 404)"),
        (f"sha256:{'0' * 64}", "manifests", "cannot be pulled (refused with 403)"),
        (f"sha256:{'0' * 64}", "/v2/", "answers 403"),
    ],
)
def test_why_one_cannot_be_had_is_said_with_its_name(
    registry: Registry, only_in_a_registry: None, tmp_path: Path, digest: str | None, refuse: str, why: str
) -> None:
    registry.refuse = refuse
    said = images.obstacle(chosen(tmp_path, digest), "tool")
    assert said is not None
    assert said.startswith(f"only a registry has {REFERENCE}: ")
    assert why in said


LOADER = """#!/bin/sh
[ "$1" = --library-path ] || exit 1
shift 3
exec {python} "$@"
"""


def python_of_packages(root: Path) -> Python:
    """Where a set of packages would be: its loader hands over to the Python that runs us."""
    loader = root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text(LOADER.format(python=sys.executable))
    loader.chmod(0o755)
    return Python(root, Commands(root / "logs"))


def test_modules_are_compiled_once_and_not_in_each_container(tmp_path: Path) -> None:
    site = tmp_path / "site/greeter"
    (site / "tests").mkdir(parents=True)
    (tmp_path / "greeter.py").write_text("def greet():\n    raise ValueError('no')\n")
    (site / "__init__.py").symlink_to(tmp_path / "greeter.py")
    (site / "tests/test_greeter.py").write_text("import greeter\n")
    python_of_packages(tmp_path / "packages").compile("greeter", site.parent)
    (compiled,) = site.parent.rglob("*.pyc")
    assert compiled.parent == site / "__pycache__"
    (tmp_path / "greeter.py").write_text("changed = True\n")  # nobody looks at it
    imported = "import sys; sys.path.append(sys.argv[1]); from greeter import greet; print(greet.__name__)"
    words = [sys.executable, "-I", "-c", imported, site.parent]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "greet\n"
    assert str(tmp_path).encode() not in compiled.read_bytes()


def test_what_is_not_python_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/broken.py").write_text("def (:\n")
    with pytest.raises(CommandFailed) as failure:
        python_of_packages(tmp_path / "packages").compile("greeter", tmp_path / "site")
    assert "broken.py" in failure.value.log.read_text()


def test_a_tree_keeps_debians_merged_folders() -> None:
    tree = Tree()
    tree.write("/lib/x", "")
    tree.write("/usr/lib/y", "")
    tree.folder("/lib")
    assert sorted(tree.nodes) == ["usr/lib/x", "usr/lib/y"]


def test_a_tree_never_leaves_the_image(tmp_path: Path) -> None:
    tree = Tree()
    tree.write("../../etc/passwd", "x")
    assert list(tree.nodes) == ["etc/passwd"]


def test_every_image_of_the_default_release_has_a_recipe_or_a_digest() -> None:
    release = Release.load(DEFAULT_RELEASE)
    known = recipes.known()
    for name, pin in release.images.items():
        assert pin.digest or name in known.images or name in sparable(layers()), name
    for name, recipe in known.images.items():
        assert name in release.images
        release.select([*recipe.programs, *recipe.packages_of])
        for layer_name in recipe.layers_used():
            release.files_of(layer_name)


def test_a_node_starts_with_images_that_the_release_has() -> None:
    release = Release.load(DEFAULT_RELEASE)
    assert set(node.recipe().preload) <= set(release.images)
    release.select(node.recipe().programs)
    assert release.images[node.IMAGE].digest


def test_a_python_set_changes_only_with_what_is_in_it() -> None:
    known = recipes.known()
    commands = Commands(Path("unused"))
    sources = LockedDistributions(commands, lambda: Python(Path("unused"), commands))
    wanted = {name: sources.recipe(one)["requirements"] for name, one in known.python.items()}
    assert "kserve==" in wanted["models"]
    assert "kserve==" not in wanted["web"]
    assert all("--hash=sha256:" in text for text in wanted.values())
