"""Programs that are on PATH already."""

from pathlib import Path

import pytest
from programs_kit import get, release

from inferencebox.errors import SetupProblem

LAYERS = """
    tools:
      version: v1.2.3
      purpose: a test
      programs:
        ibox-test-tool: {purpose: a test, version_check: {arguments: [version], pattern: 'tool 1\\.2\\.3$'}}
"""


@pytest.fixture(params=["bin", "a bin with spaces"])
def tool(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / str(request.param)
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder / "ibox-test-tool"


def write(tool: Path, version: str) -> None:
    tool.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo tool {version}\n')
    tool.chmod(0o755)


def test_a_program_of_the_pinned_version_is_used(tool: Path, tmp_path: Path) -> None:
    write(tool, "1.2.3")
    assert get(release(tmp_path / "r.yaml", LAYERS), tmp_path / "cache", tool.name) == {tool.name: tool}


def test_a_program_of_another_version_is_not_used(tool: Path, tmp_path: Path) -> None:
    write(tool, "1.2.4")
    with pytest.raises(SetupProblem, match=r"ibox-test-tool v1\.2\.3 is not to be had"):
        get(release(tmp_path / "r.yaml", LAYERS), tmp_path / "cache", tool.name)


def test_a_program_that_does_not_run_is_not_used(tool: Path, tmp_path: Path) -> None:
    tool.write_bytes(b"\x7fELF")
    tool.chmod(0o755)
    with pytest.raises(SetupProblem, match="not to be had"):
        get(release(tmp_path / "r.yaml", LAYERS), tmp_path / "cache", tool.name)
