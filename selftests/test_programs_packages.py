"""Programs from wheels and Debian packages that the tests make themselves."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from programs_kit import get, release, tool_release

from inferencebox.errors import SetupProblem
from inferencebox.programs import apt, pypi
from inferencebox.programs.launcher import triplet, write_launcher
from inferencebox.release import Release

PROGRAM = "#!/bin/sh\necho tool 1.2.3\n"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is the only package index there is."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "ibox_test_tool-1.2.3-py3-none-any.whl"
    info = "ibox_test_tool-1.2.3.dist-info"
    files = {
        "tool/_bin/tool": PROGRAM,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: ibox-test-tool\nVersion: 1.2.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    for tool in ("UV", "PIP"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(index))
    return path


def wheel_release(tmp_path: Path, digest: str, requirement: str = "ibox-test-tool==1.2.3") -> Release:
    wheel = {"requirement": requirement, "sha256": [digest], "path": "tool/_bin/tool", "publisher": "us"}
    return tool_release(tmp_path, wheel=wheel)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("folder", ["cache", "a cache with spaces"])
def test_a_program_comes_out_of_a_wheel(wheel: Path, tmp_path: Path, folder: str) -> None:
    program = get(wheel_release(tmp_path, sha256(wheel)), tmp_path / folder, "ibox-test-tool")["ibox-test-tool"]
    assert subprocess.check_output([program], text=True) == "tool 1.2.3\n"


def test_a_wheel_with_another_checksum_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match=r"ibox-test-tool==1\.2\.3 has another checksum.*Fix: do not use it"):
        get(wheel_release(tmp_path, "3" * 64), tmp_path / "cache", "ibox-test-tool")
    assert not (tmp_path / "cache/store").exists()


def test_a_wheel_that_is_not_to_be_had_is_said(wheel: Path, tmp_path: Path) -> None:
    chosen = wheel_release(tmp_path, sha256(wheel), requirement="ibox-test-other==1")
    with pytest.raises(SetupProblem, match="PyPI gives no ibox-test-other==1"):
        get(chosen, tmp_path / "cache", "ibox-test-tool")


def test_without_uv_and_pip_it_is_said(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "installer", list)
    with pytest.raises(SetupProblem, match=r"neither uv nor pip is here\. Fix: pip install uv"):
        get(wheel_release(tmp_path, sha256(wheel)), tmp_path / "cache", "ibox-test-tool")


@pytest.fixture
def debs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``apt-get`` that takes packages from a folder, and one package in it."""
    folder = tmp_path / "debs"
    content = tmp_path / "content"
    for name in ("usr/bin", "usr/share/doc/tool", "DEBIAN"):
        (content / name).mkdir(parents=True)
    (content / "usr/bin/tool").write_text('#!/bin/sh\necho "tool 1.2.3 $LIBS" "$@"\n')
    (content / "usr/bin/tool").chmod(0o755)
    (content / "usr/share/doc/tool/README").write_text("unneeded")
    (content / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1.2.3-1\nArchitecture: all\nMaintainer: a test <a@example.org>\nDescription: a test\n"
    )
    folder.mkdir()
    subprocess.run(["dpkg-deb", "-b", content, folder / "tool_1.2.3-1_all.deb"], check=True, capture_output=True)
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "apt-get").write_text(
        f'#!/bin/sh\nfor word; do last=$word; done\n[ "$last" = update ] && exit 0\n'
        f'cp "{folder}/${{last%%=*}}"_*.deb . || {{ echo "E: Unable to locate package $last" >&2; exit 100; }}\n'
    )
    (stub / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub}{os.pathsep}{os.environ['PATH']}")
    return folder


DEB_PROGRAM = """
        {name}:
          purpose: a test
          version_check: {{pattern: 'tool {version}'}}
          deb:
            packages: [{package}]
            launchers: {{{name}: [usr/bin/tool, first], sibling: [usr/bin/tool, second]}}
            environment: {{LIBS: "@ROOT@/lib:@ROOT@/usr/lib/@TRIPLET@"}}
"""


def deb_release(tmp_path: Path, **packages: str) -> Release:
    programs = "".join(
        DEB_PROGRAM.format(name=f"ibox-test-{name}", package=package, version="9" if name == "other" else "1.2.3")
        for name, package in packages.items()
    )
    head = "\n    tools:\n      version: v1.2.3\n      purpose: a test\n      programs:"
    return release(tmp_path / "r.yaml", head + programs)


needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="makes a Debian package with dpkg-deb")


@needs_dpkg
@pytest.mark.parametrize("folder", ["cache", "a cache with spaces"])
def test_a_launcher_starts_the_program_with_its_own_libraries(debs: Path, tmp_path: Path, folder: str) -> None:
    chosen = deb_release(tmp_path, tool="tool=1.2.3*")
    program = get(chosen, tmp_path / folder, "ibox-test-tool")["ibox-test-tool"]
    root = program.parent.parent / "root"
    said = subprocess.check_output([program, "and more"], text=True)
    assert said.replace("bin/../", "") == f"tool 1.2.3 {root}/lib:{root}/usr/lib/{triplet()} first and more\n"
    sibling = subprocess.check_output([program.with_name("sibling")], text=True)
    assert sibling.endswith(" second\n")
    assert not (root / "usr/share/doc").exists()


@needs_dpkg
def test_a_launcher_works_through_a_link(debs: Path, tmp_path: Path) -> None:
    program = get(deb_release(tmp_path, tool="tool"), tmp_path / "cache", "ibox-test-tool")["ibox-test-tool"]
    (tmp_path / "link").symlink_to(program)
    assert "tool 1.2.3" in subprocess.check_output([tmp_path / "link"], text=True)


@needs_dpkg
def test_a_package_that_is_not_to_be_had_is_said(debs: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="Unable to locate package nosuch"):
        get(deb_release(tmp_path, tool="nosuch"), tmp_path / "cache", "ibox-test-tool")


@needs_dpkg
def test_one_missing_package_does_not_spoil_the_others(debs: Path, tmp_path: Path) -> None:
    chosen = deb_release(tmp_path, tool="tool", second="nosuch")
    with pytest.raises(SetupProblem, match="ibox-test-second"):
        get(chosen, tmp_path / "cache", "ibox-test-tool", "ibox-test-second")
    assert (tmp_path / "cache/store/ibox-test-tool").exists()


@needs_dpkg
def test_a_package_of_another_version_is_not_used(debs: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match=r"the packages hold no v1\.2\.3"):
        get(deb_release(tmp_path, other="tool"), tmp_path / "cache", "ibox-test-other")


def test_a_machine_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "missing_tools", lambda: ["apt-get"])
    with pytest.raises(SetupProblem, match=r"no apt-get here\. Fix: use a Debian machine"):
        get(deb_release(tmp_path, tool="tool"), tmp_path / "cache", "ibox-test-tool")


def test_a_launcher_quotes_what_it_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "it's a $place"
    (folder / "root").mkdir(parents=True)
    program = folder / "root" / "a tool"
    program.write_text('#!/bin/sh\nprintf "%s|" "$VALUE" "$@"\n')
    program.chmod(0o755)
    write_launcher(folder / "launch", "root", ["a tool", "$(x)"], {"VALUE": "$y"})
    assert subprocess.check_output([folder / "launch", "*"], text=True) == "$y|$(x)|*|"
