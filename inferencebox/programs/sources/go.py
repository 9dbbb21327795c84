"""Programs and files out of Go modules, built with the pins of ``programs/<folder>/go.mod`` and ``go.sum``."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.programs import toolchain
from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.programs.store import digest_of
from inferencebox.programs.toolchain import Toolchain
from inferencebox.release import FilesPin, GoModule, Item

PIN_FILES = ("go.mod", "go.sum")
OVERLAY = "overlay"
COMPILER_FLAGS = "-gcflags=all=-dwarf=false"
LINKER_FLAGS = "-s -w"
MAJOR_VERSION = re.compile(r"v[0-9]+")
REFUSED = ("403 Forbidden", "404 Not Found", "410 Gone")
NO_NETWORK = ("dial tcp", "no such host", "i/o timeout", "connection refused", "module lookup disabled")
TAMPERED = ("checksum mismatch", "SECURITY ERROR")

FindToolchain = Callable[[tuple[int, ...]], Toolchain]


class GoModules:
    """What building programs and keeping files have in common: the pins and the go command."""

    def __init__(self, programs: Path, find_toolchain: FindToolchain, commands: Commands) -> None:
        self._programs = programs
        self._find_toolchain = find_toolchain
        self._commands = commands

    def obstacle(self, item: Item) -> Unavailable | None:
        try:
            self._folder(item)
        except Unavailable as why:
            return why
        return None

    def _folder(self, item: Item) -> Path:
        """The folder with the pins."""
        folder = self._programs / module_of(item).folder
        if not all((folder / name).is_file() for name in PIN_FILES):
            raise Unavailable(f"no go.mod and go.sum in {folder}", "run from a checkout of the project")
        return folder

    def _pins(self, item: Item) -> dict[str, Any]:
        module = module_of(item)
        folder = self._folder(item)
        return {
            "module": module.module,
            "version": module.version or item.version,
            **{name: digest_of(folder / name) for name in PIN_FILES},
            "go": ".".join(map(str, toolchain.required_version(folder / "go.mod"))),
        }

    def _prepare(self, item: Item, work: Path) -> tuple[Path, Toolchain]:
        """A writable copy of the pins, checked against the release, and the toolchain they ask for."""
        folder = work / "pins"
        folder.mkdir()
        for path in [*(self._folder(item) / name for name in PIN_FILES), *self._own_sources(item)]:
            shutil.copyfile(path, folder / path.name)
        check_pin(item, self._programs)
        return folder, self._find_toolchain(toolchain.required_version(folder / "go.mod"))

    def _own_sources(self, item: Item) -> list[Path]:
        """A program of ours that puts modules together: beside its pins, in the module that they are of."""
        return sorted(self._folder(item).glob("*.go"))

    def _module_folder(self, item: Item, name: str, pins: Path, tools: Toolchain) -> Path:
        """A module of the pins in Go's module cache, fetched if need be and held against ``go.sum``."""
        module = module_of(item)
        answer = self._go(f"{item.name}-module", tools, ["mod", "download", "-json", name], pins, module)
        return Path(json.loads(answer)["Dir"])

    def _go(self, name: str, tools: Toolchain, arguments: Sequence[str | Path], cwd: Path, module: GoModule) -> str:
        unlisted = [*filter(None, [tools.environment.get("GONOSUMDB")]), *module.unlisted]
        env = {**tools.environment, "GONOSUMDB": ",".join(unlisted)}
        try:
            return self._commands.run(name, [tools.go, *arguments], cwd=cwd, env=env)
        except CommandFailed as failure:
            raise explain(failure, module) from failure


class GoPrograms(GoModules):
    """Builds the programs of one go.mod in one go."""

    name = "go"
    needs_bytes = 3 << 30
    uses_all_cores = True

    def offers(self, item: Item) -> bool:
        return item.package is not None

    def batch(self, item: Item) -> str:
        module = module_of(item)
        return f"go-{module.folder}-{item.layer}" if module.ldflags else f"go-{module.folder}"

    def recipe(self, item: Item) -> Mapping[str, Any]:
        flags = [COMPILER_FLAGS, LINKER_FLAGS, module_of(item).ldflags]
        return {
            "package": item.package,
            "flags": flags,
            "environment": toolchain.BUILD_ENVIRONMENT,
            **self._pins(item),
            **self._own_tree(item),
            **self._own_program(item),
        }

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        module = module_of(items[0])
        pins, tools = self._prepare(items[0], work)
        out = work / "out"
        out.mkdir()
        tree = self._copy_of_the_module(items[0], pins, tools, work / "tree") if module.own_tree else pins
        packages = [item.package for item in items if item.package]
        flags = ["-ldflags", f"{LINKER_FLAGS} {module.ldflags}".strip(), "-o", f"{out}/"]
        self._go(self.batch(items[0]), tools, ["build", COMPILER_FLAGS, *flags, *packages], tree, module)
        return {item.name: self._take(item, out, work, tools) for item in items}

    def _own_tree(self, item: Item) -> dict[str, Any]:
        """What a build in a copy of the module depends on besides the pins."""
        if not module_of(item).own_tree:
            return {}
        overlay = self._folder(item) / OVERLAY
        files = sorted(path for path in overlay.rglob("*") if path.is_file())
        return {OVERLAY: {str(path.relative_to(overlay)): digest_of(path) for path in files}}

    def _own_program(self, item: Item) -> dict[str, Any]:
        """What a build depends on besides the pins if the program is ours."""
        sources = {path.name: digest_of(path) for path in self._own_sources(item)}
        return {"sources": sources} if sources else {}

    def _copy_of_the_module(self, item: Item, pins: Path, tools: Toolchain, tree: Path) -> Path:
        module = module_of(item)
        _copy_matching(self._module_folder(item, module.module, pins, tools), "**/*", tree)
        overlay = self._folder(item) / OVERLAY
        if overlay.is_dir():
            _copy_matching(overlay, "**/*", tree)
        return tree

    def _take(self, item: Item, out: Path, work: Path, tools: Toolchain) -> Made:
        assert item.package
        folder = work / f"made-{item.name}"
        folder.mkdir()
        (out / executable_name(item.package)).rename(folder / item.name)
        return Made(folder, item.name, {"go": tools.version, "package": item.package})


class GoFiles(GoModules):
    """Keeps files of a Go module: CRDs, charts, templates."""

    name = "module"
    needs_bytes = 1 << 30
    uses_all_cores = False

    def offers(self, item: Item) -> bool:
        return isinstance(item, FilesPin)

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        module = module_of(item)
        return {"files": module.files, "dependencies": module.dependencies, **self._pins(item)}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        module = module_of(item)
        pins, tools = self._prepare(item, work)
        folder = work / "out"
        self._keep(module.files, self._module_folder(item, module.module, pins, tools), folder, module.module)
        for name, patterns in module.dependencies.items():
            self._keep(patterns, self._module_folder(item, name, pins, tools), folder / name, name)
        return Made(folder, "", {"go": tools.version, "module": module.module})

    def _keep(self, patterns: Sequence[str], source: Path, folder: Path, name: str) -> None:
        for pattern in patterns:
            if not _copy_matching(source, pattern, folder):
                raise Unavailable(f"{name} has no {pattern}", "correct the files in the release")


def module_of(item: Item) -> GoModule:
    assert item.module
    return item.module


def executable_name(package: str) -> str:
    """What ``go build -o folder/`` calls the program of a package."""
    parts = package.split("/")
    return parts[-2] if MAJOR_VERSION.fullmatch(parts[-1]) and len(parts) > 1 else parts[-1]


def check_pin(item: Item, programs: Path) -> None:
    """A release and the go.mod it names must pin the same version."""
    module = module_of(item)
    version = module.version or item.version
    go_mod = programs / module.folder / "go.mod"
    text = go_mod.read_text() if go_mod.is_file() else ""
    name = re.escape(module.module)
    replaced = re.search(rf"^(?:replace)?\s*{name} => \S+ (\S+)", text, re.MULTILINE)
    pinned = replaced or re.search(rf"^(?:require)?\s*{name} (v\S+)", text, re.MULTILINE)
    if not pinned or pinned[1] != version:
        raise SetupProblem(
            f"the release has {module.module} {version}, programs/{module.folder}/go.mod has "
            f"{pinned[1] if pinned else 'none'}",
            f"pin the same version in both, go.sum included (cd programs/{module.folder} && go get ...)",
        )


def explain(failure: CommandFailed, module: GoModule) -> Exception:
    """What a failed go command means for us."""
    if any(words in failure.tail for words in TAMPERED):
        return SetupProblem(
            f"a Go module of {module.folder} has another checksum than programs/{module.folder}/go.sum",
            f"do not build it; see {failure.log}",
        )
    if any(words in failure.tail for words in REFUSED):
        return Unavailable(f"the Go proxy refuses it ({failure})", f"pin a version the proxy serves; see {failure.log}")
    if any(words in failure.tail for words in NO_NETWORK):
        return Unavailable(f"no Go proxy in reach ({failure})", "check the network and GOPROXY, then run this again")
    return Unavailable(f"{module.folder} does not build ({failure})", f"see {failure.log}, then run this again")


def _copy_matching(source: Path, pattern: str, target: Path) -> int:
    """Copy the files that a pattern matches, writable; how many there were."""
    found = [path for path in source.glob(pattern) if path.is_file()]
    for path in found:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return len(found)
