"""Programs from Go modules, with a ``go`` that is a script, and once with a real one."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from programs_kit import FakeGo, get, release, write_pins

from inferencebox.errors import SetupProblem
from inferencebox.programs import provision, pypi, toolchain
from inferencebox.release import Release

LAYERS = """
    tools:
      version: v1.2.3
      purpose: a test
      go:
        folder: tools
        module: example.org/tools
        ldflags: "-X a=b"
        unlisted: [example.org/tools]
        files: ["crds/*.yaml"]
      programs:
        one: {purpose: a test, package: example.org/tools/one}
        two: {purpose: a test, package: example.org/tools/cmd/second}
"""


REAL_GO = shutil.which("go")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with the usual tools, but without a Go of its own and without PyPI."""
    folders = os.environ["PATH"].split(os.pathsep)
    monkeypatch.setenv("PATH", os.pathsep.join(folder for folder in folders if not shutil.which("go", path=folder)))
    monkeypatch.setattr(provision, "programs_dir", lambda: tmp_path / "programs")
    monkeypatch.setattr(pypi, "installer", list)
    write_pins(tmp_path / "programs")


@pytest.fixture
def chosen(tmp_path: Path) -> Release:
    return release(tmp_path / "r.yaml", LAYERS)


@pytest.fixture(params=["cache", "a cache with spaces"])
def cache(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / str(request.param)


def test_programs_of_one_module_are_built_together_and_run(chosen: Release, cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin")
    paths = get(chosen, cache, "one", "two")
    assert len(go.builds()) == 1
    assert "-X a=b" in go.builds()[0]
    assert subprocess.check_output([paths["two"]], text=True) == "built example.org/tools/cmd/second\n"
    assert paths["one"].name == "one"


def test_only_what_is_asked_for_is_built(chosen: Release, cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin")
    get(chosen, cache, "one")
    assert "cmd/second" not in go.builds()[0]
    get(chosen, cache, "one", "two")
    assert "tools/one" not in go.builds()[1]


def test_a_second_run_needs_neither_compiler_nor_network(chosen: Release, cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin")
    first = get(chosen, cache, "one")
    (tmp_path / "bin" / "go").unlink()
    assert get(chosen, cache, "one") == first


def test_again_builds_anew_and_mends_a_damaged_program(chosen: Release, cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin")
    get(chosen, cache, "one")["one"].write_text("damaged")
    with pytest.raises(SetupProblem, match="ibox build --again one"):
        get(chosen, cache, "one")
    get(chosen, cache, "one", again=True)
    assert len(go.builds()) == 2
    get(chosen, cache, "one")
    assert len(go.builds()) == 2


def test_another_pin_is_another_build(chosen: Release, cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin")
    get(chosen, cache, "one")
    with (tmp_path / "programs/tools/go.sum").open("a") as sums:
        sums.write("example.org/other v1.0.0 h1:abc\n")
    get(chosen, cache, "one")
    assert len(go.builds()) == 2


def test_files_of_a_module_are_kept(chosen: Release, cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin")
    (tmp_path / "bin/module/crds").mkdir(parents=True)
    (tmp_path / "bin/module/crds/a.yaml").write_text("kind: A")
    (tmp_path / "bin/module/main.go").write_text("package main")
    kept = get(chosen, cache, "files-tools")["files-tools"]
    assert [str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()] == ["crds/a.yaml"]


def test_files_that_a_module_lacks_are_said(chosen: Release, cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin")
    (tmp_path / "bin/module").mkdir()
    with pytest.raises(SetupProblem, match=r"example\.org/tools has no crds/\*\.yaml"):
        get(chosen, cache, "files-tools")


def test_no_compiler_and_no_pypi_is_said(chosen: Release, cache: Path) -> None:
    with pytest.raises(SetupProblem, match=r"one v1\.2\.3 is not to be had: go: neither uv nor pip is here") as problem:
        get(chosen, cache, "one")
    assert problem.value.fix == pypi.INSTALLER_FIX


def test_an_old_compiler_is_not_used(chosen: Release, cache: Path, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin", version="1.23.9")
    with pytest.raises(SetupProblem, match="not to be had"):
        get(chosen, cache, "one")
    assert go.builds() == []


FAILURES = {
    "refused": ("403 Forbidden", "the Go proxy refuses it", "pin a version the proxy serves"),
    "no network": ("dial tcp: lookup proxy: no such host", "no Go proxy in reach", "check the network"),
    "checksum": ("verifying module: checksum mismatch", "another checksum", "do not build it"),
    "compile error": ("x.go:1:1: undefined: y", "tools does not build", "see "),
    "full disk": ("write: no space left on device", "ran out of disk space", "make room"),
}


@pytest.mark.parametrize(("message", "what", "fix"), FAILURES.values(), ids=FAILURES)
def test_a_failed_build_is_one_line_with_the_fix(
    chosen: Release, tmp_path: Path, message: str, what: str, fix: str
) -> None:
    FakeGo(tmp_path / "bin", before=f"echo '{message}' >&2; exit 1")
    with pytest.raises(SetupProblem) as problem:
        get(chosen, tmp_path / "cache", "one")
    assert what in problem.value.what
    assert fix in problem.value.fix
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "cache/store").exists()


def test_a_release_that_disagrees_with_go_mod_is_said(chosen: Release, cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin")
    write_pins(tmp_path / "programs", version="v1.2.4")
    with pytest.raises(SetupProblem, match=r"the release has example\.org/tools v1\.2\.3, .* has v1\.2\.4"):
        get(chosen, cache, "one")


def test_two_runs_at_once_build_once(chosen: Release, tmp_path: Path) -> None:
    go = FakeGo(tmp_path / "bin", before="sleep 0.5")
    runs = [threading.Thread(target=get, args=(chosen, tmp_path / "cache", "one")) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(go.builds()) == 1


KILLED_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {selftests!r})
from programs_kit import get
from inferencebox.programs import provision
from inferencebox.release import Release
provision.programs_dir = lambda: Path({folder!r}) / "programs"
get(Release.load({release!r}), Path({folder!r}) / "cache", "one")
"""


def test_a_killed_run_leaves_nothing_and_the_next_one_builds(chosen: Release, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin", before=f"echo $$ > {tmp_path}/pid; sleep 60")
    selftests = str(Path(__file__).parent)
    script = KILLED_RUN.format(selftests=selftests, folder=str(tmp_path), release=str(tmp_path / "r.yaml"))
    run = subprocess.Popen([sys.executable, "-c", script])
    builder = tmp_path / "pid"
    _wait_for(lambda: builder.exists() and builder.read_text().strip() != "")
    run.kill()
    run.wait()
    _wait_for(lambda: not Path(f"/proc/{builder.read_text().strip()}").exists())
    assert not (tmp_path / "cache/store").exists()
    FakeGo(tmp_path / "bin")
    assert get(chosen, tmp_path / "cache", "one")["one"].exists()
    assert list((tmp_path / "cache/work").iterdir()) == []


def test_gos_own_caches_move_when_home_cannot_be_written(
    chosen: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeGo(tmp_path / "bin", before=f"echo $GOCACHE $GOMODCACHE > {tmp_path}/caches")
    monkeypatch.setattr(toolchain, "_writable", lambda folder: False)
    get(chosen, tmp_path / "cache", "one")
    assert (tmp_path / "caches").read_text().split() == [
        str(tmp_path / "cache/go/gocache"),
        str(tmp_path / "cache/go/gomodcache"),
    ]


@pytest.mark.skipif(not REAL_GO, reason="builds a small program with Go")
def test_a_real_program_is_built(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REAL_GO
    monkeypatch.setenv("PATH", str(Path(REAL_GO).parent), prepend=os.pathsep)
    module = tmp_path / "programs/tools/one"
    module.mkdir()
    (module / "go.mod").write_text("module example.org/tools\n\ngo 1.24.0\n")
    (module / "main.go").write_text('package main\n\nvar word = "unset"\n\nfunc main() { println(word) }\n')
    write_pins(tmp_path / "programs")
    with (tmp_path / "programs/tools/go.mod").open("a") as pins:
        pins.write(f"\nreplace example.org/tools => {json.dumps(str(module))}\n")
    chosen = release(tmp_path / "real.yaml", LAYERS.replace("tools/one", "tools").replace("a=b", "main.word=set"))
    done = subprocess.run([get(chosen, cache, "one")["one"]], capture_output=True, text=True)
    assert done.stderr == "set\n"


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_of_a_dependency_are_kept_in_a_folder_of_its_name(cache: Path, tmp_path: Path) -> None:
    FakeGo(tmp_path / "bin")
    (tmp_path / "bin/module/config").mkdir(parents=True)
    (tmp_path / "bin/module/config/a.yaml").write_text("kind: A")
    text = LAYERS.replace('["crds/*.yaml"]', '["config/*"]\n        dependencies: {example.org/other: ["config/*"]}')
    kept = get(release(tmp_path / "r.yaml", text), cache, "files-tools")["files-tools"]
    found = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert found == ["config/a.yaml", "example.org/other/config/a.yaml"]


def test_a_module_can_be_built_in_a_tree_of_its_own(cache: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    go = FakeGo(tmp_path / "bin", before=f'[ "$1" = build ] && ls > "{seen}"')
    (tmp_path / "bin/module").mkdir(parents=True)
    (tmp_path / "bin/module/go.mod").write_text("module example.org/tools")
    overlay = tmp_path / "programs/tools/overlay"
    overlay.mkdir()
    (overlay / "main.go").write_text("package main")
    chosen = release(tmp_path / "r.yaml", LAYERS.replace("ldflags:", "own_tree: true\n        ldflags:"))
    first = get(chosen, cache, "one")
    assert seen.read_text().split() == ["go.mod", "main.go"]
    (overlay / "main.go").write_text("package main // changed")
    assert get(chosen, cache, "one") != first
    assert len(go.builds()) == 2


def test_a_program_of_ours_lies_beside_its_pins_and_is_built_anew_when_it_changes(
    chosen: Release, cache: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    go = FakeGo(tmp_path / "bin", before=f'[ "$1" = build ] && ls > "{seen}"')
    main = tmp_path / "programs/tools/main.go"
    main.write_text("package main")
    first = get(chosen, cache, "one")
    assert seen.read_text().split() == ["go.mod", "go.sum", "main.go"]
    assert get(chosen, cache, "one") == first
    main.write_text("package main // changed")
    assert get(chosen, cache, "one") != first
    assert len(go.builds()) == 2
