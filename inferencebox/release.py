"""Releases: named, complete sets of pins. A release file says once which version runs and where it comes from."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from inferencebox.errors import SetupProblem
from inferencebox.paths import manifests_dir

SHA256 = re.compile(r"[0-9a-f]{64}")
IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FILES_PREFIX = "files-"
IMAGE_PREFIX = "image-"
DEFAULT_RELEASE = "2026.11"
OUR_IMAGES = "docker.io/inference-in-a-box/"
"""Images of our own programs: no public registry has them."""

Picked = TypeVar("Picked")


class Pin(BaseModel):
    """Base of everything in a release file: nothing unknown, nothing changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Described = TypeVar("Described", bound=Pin)


class VersionCheck(Pin):
    """How a program found on this machine shows that it is the pinned version.

    Args:
        arguments: what makes the program print its version.
        pattern: regular expression that the output has to contain.
    """

    arguments: list[str] = Field(default_factory=lambda: ["--version"])
    pattern: str

    @field_validator("pattern")
    @classmethod
    def compiles(cls, pattern: str) -> str:
        re.compile(pattern)
        return pattern


class ImageSource(Pin):
    """The vendor's container image. Without a digest it is named for the record and never pulled."""

    reference: str
    path: str
    digest: str | None = None

    @field_validator("digest")
    @classmethod
    def is_sha256(cls, digest: str | None) -> str | None:
        if digest is not None and not IMAGE_DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not sha256: and 64 hexadecimal digits")
        return digest


class GoModule(Pin):
    """The Go module a layer is built from; ``programs/<folder>/go.mod`` and ``go.sum`` hold all its dependencies.

    Args:
        folder: below ``programs/``.
        module: the module that is pinned there.
        version: its version as the module proxy names it, if that is not the layer's.
        ldflags: added to ``-s -w``.
        unlisted: module patterns that the checksum database does not know; their hashes are in ``go.sum``.
        files: what ``module_files`` keeps of the module, as patterns.
        dependencies: the same for modules that it depends on, in a folder of their name: module -> patterns.
        own_tree: build in a writable copy of the module, with the module's own ``go.mod`` and ``go.sum`` (which our
            ``go.sum`` vouches for) and ``programs/<folder>/overlay`` laid over it. For modules that cannot be built as
            a dependency; packages are then given as ``./path``.
    """

    folder: str
    module: str
    version: str | None = None
    ldflags: str = ""
    unlisted: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    dependencies: dict[str, list[str]] = Field(default_factory=dict)
    own_tree: bool = False


class WheelSource(Pin):
    """A program inside a PyPI wheel. ``sha256`` is of the wheels of all machines; ``publisher`` is whom one trusts."""

    requirement: str
    sha256: list[str] = Field(min_length=1)
    path: str
    publisher: str

    @field_validator("sha256")
    @classmethod
    def are_sha256(cls, digests: list[str]) -> list[str]:
        for digest in digests:
            if not SHA256.fullmatch(digest):
                raise ValueError(f"{digest!r} is not 64 hexadecimal digits")
        return digests


class DebSource(Pin):
    """A program out of Debian packages, unpacked and not installed.

    Args:
        packages: the program's package and every library of it, as ``name`` or ``name=version*``; nothing is resolved.
        releases: other releases of Debian than the machine's that packages come from; give the version of those.
        launchers: name of a launcher -> path of the program in the packages, and arguments that come first.
        environment: variables for the launchers; ``@ROOT@`` is where the packages are unpacked, ``@TRIPLET@`` the
            machine in Debian's words (x86_64-linux-gnu).
    """

    packages: list[str] = Field(min_length=1)
    releases: list[str] = Field(default_factory=list)
    launchers: dict[str, list[str]] = Field(min_length=1)
    environment: dict[str, str] = Field(default_factory=dict)


class Item(Pin):
    """One thing that can be provided, and the sources that can give it.

    Args:
        name, layer, version, module: filled in from where the item stands in the release.
        version_check: how it shows its version; without, PATH is not looked at.
        package: its Go package in the layer's module.
        expected_seconds: how long making it took when nothing of it was cached, on two cores.
    """

    name: str = ""
    layer: str = ""
    version: str = ""
    module: GoModule | None = None
    version_check: VersionCheck | None = None
    image: ImageSource | None = None
    package: str | None = None
    wheel: WheelSource | None = None
    deb: DebSource | None = None
    expected_seconds: float = 30


class ProgramPin(Item):
    """One program."""

    purpose: str

    @model_validator(mode="after")
    def has_a_source(self) -> "ProgramPin":
        if not (self.version_check or self.image or self.package or self.wheel or self.deb):
            raise ValueError("no source: give version_check, image, package, wheel or deb")
        return self


class FilesPin(Item):
    """The files kept of a layer's Go module: CRDs, charts, templates."""

    expected_seconds: float = 5


class ImagePin(Item):
    """One container image of the platform: pulled by digest, or assembled as ``manifests/images.yaml`` says.

    Args:
        reference: what manifests name it, ``host/repository:tag``.
        digest: of its manifest or index in the registry, if somebody has looked it up.
    """

    reference: str
    digest: str | None = None
    expected_seconds: float = 10

    @field_validator("digest")
    @classmethod
    def is_digest(cls, digest: str | None) -> str | None:
        return ImageSource.is_sha256(digest)


class LayerPin(Pin):
    """One installable part of the platform at one version.

    Args:
        needs_nodes: whether nothing of it runs on a platform without nodes.
    """

    version: str
    purpose: str
    needs_nodes: bool = False
    go: GoModule | None = None
    programs: dict[str, ProgramPin] = Field(default_factory=dict)


class ToolchainPin(Pin):
    """The Go toolchain to use when PATH has none that is new enough."""

    wheel: WheelSource


class Release(Pin):
    """A named, complete set of pins."""

    name: str
    about: str
    toolchain: ToolchainPin
    layers: dict[str, LayerPin]
    images: dict[str, ImagePin] = Field(default_factory=dict)

    @classmethod
    def names(cls, folder: Path | None = None) -> list[str]:
        """The releases there are."""
        return sorted(path.stem for path in (folder or releases_dir()).glob("*.yaml"))

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Release":
        """Read and check a release by its name, or by the path of its file."""
        return parse(find_file(str(name_or_path)))

    @cached_property
    def programs(self) -> Mapping[str, ProgramPin]:
        """All programs of all layers by name."""
        return {
            name: program.model_copy(
                update={"name": name, "layer": layer_name, "version": layer.version, "module": layer.go}
            )
            for layer_name, layer in self.layers.items()
            for name, program in layer.programs.items()
        }

    @cached_property
    def files(self) -> Mapping[str, FilesPin]:
        """By layer, the module files that are kept."""
        return {
            name: FilesPin(name=f"{FILES_PREFIX}{name}", layer=name, version=layer.version, module=layer.go)
            for name, layer in self.layers.items()
            if layer.go and layer.go.files
        }

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """All that can be provided by name: programs, and module files as ``files-<layer>``."""
        return {**self.programs, **{pin.name: pin for pin in self.files.values()}}

    def select(self, names: Sequence[str]) -> list[Item]:
        """The items of these names, in this order."""
        return [self._pick(self.items, name, "program") for name in dict.fromkeys(names)]

    def images_of(self, names: Sequence[str]) -> list[ImagePin]:
        """The container images of these names."""
        chosen = [self._pick(self.images, name, "image") for name in dict.fromkeys(names)]
        return [
            pin.model_copy(update={"name": f"{IMAGE_PREFIX}{name}", "version": pin.reference.rpartition(":")[2]})
            for name, pin in zip(dict.fromkeys(names), chosen, strict=True)
        ]

    def lack_of_image(self, name: str) -> str | None:
        """That it names no such image (a layer may be newer than a release); none if it does."""
        return None if name in self.images else f"the release {self.name} names no image {name}"

    def files_of(self, layer: str) -> FilesPin:
        """What is kept of this layer's module."""
        return self._pick(self.files, layer, "layer with module files")

    def _pick(self, table: Mapping[str, Picked], name: str, what: str) -> Picked:
        if name not in table:
            raise SetupProblem(f"release {self.name} has no {what} {name}", f"choose from: {', '.join(sorted(table))}")
        return table[name]

    @model_validator(mode="after")
    def is_consistent(self) -> "Release":
        seen: dict[str, str] = {}
        for layer_name, layer in self.layers.items():
            for name, program in layer.programs.items():
                if name in seen:
                    raise ValueError(f"program {name} is in two layers, {seen[name]} and {layer_name}")
                seen[name] = layer_name
                if program.package and not layer.go:
                    raise ValueError(f"program {name} has a package, but layer {layer_name} no go module")
                if program.deb and name not in program.deb.launchers:
                    raise ValueError(f"program {name} has a deb source without a launcher of that name")
        return self


def releases_dir() -> Path:
    return manifests_dir() / "releases"


def find_file(name_or_path: str) -> Path:
    """A name is a file of ours; anything with a slash or an ending is a path."""
    path = Path(name_or_path)
    if "/" in name_or_path or path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise SetupProblem(f"there is no release file {path}", "give the path of a file that exists")
        return path
    found = releases_dir() / f"{name_or_path}.yaml"
    if not found.is_file():
        raise SetupProblem(
            f"unknown release {name_or_path}", f"choose one of: {', '.join(Release.names()) or 'none is there'}"
        )
    return found


def parse(path: Path) -> Release:
    """Read one release file; what is wrong with it is said in one line.

    A release that is ``based_on`` another says only what it has otherwise; null takes away.
    """
    try:
        return Release.model_validate(_whole(path))
    except ValidationError as error:
        raise SetupProblem(f"release file {path}: {describe(error)}", "correct the file") from error


def _whole(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """What the file says, on top of what the one that it is based on says, and so on down."""
    if path in above:
        raise SetupProblem(f"release file {path} is based on itself", "correct based_on")
    content = _read(path)
    if isinstance(content, dict) and (base := content.pop("based_on", None)):
        return _changed(_whole(find_file(base), (*above, path)), content)
    return content


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupProblem(f"release file {path} cannot be read: {_one_line(error)}", "correct the file") from error


def _changed(base: Any, change: Any) -> Any:
    """``base`` with what ``change`` says otherwise; null takes away."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    merged = {**base, **{key: _changed(base.get(key), value) for key, value in change.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def of_checkout(path: Path, kind: type[Described]) -> Described:
    """What a file of this checkout says, as this kind of pins.

    Raises:
        SetupProblem: it is not there, or not right.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise SetupProblem(
            f"{path} cannot be read: {_one_line(error)}", "run from a checkout of the project"
        ) from error
    except ValidationError as error:
        raise SetupProblem(f"{path}: {describe(error)}", "correct the file") from error


def describe(error: ValidationError) -> str:
    """The first mistake in words, and how many more there are."""
    first, *others = error.errors()
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    rest = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{rest}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
