"""``manifests/images.yaml``: what images are put together from where no registry has them."""

from collections.abc import Mapping, Sequence
from functools import cache

from pydantic import Field, model_validator

from inferencebox.paths import manifests_dir
from inferencebox.release import Item, Pin, of_checkout

PROJECT = "project"
"""In ``files``, stands for the project's own files, where others name a layer."""
TRAINED = "trained"
"""In ``files``, stands for the models that are trained on this machine."""


class PackageSet(Item):
    """Debian packages that are unpacked over each other; every library is named, nothing is resolved."""

    packages: list[str] = Field(min_length=1)
    expected_seconds: float = 10


class PythonSet(Item):
    """Python distributions as ``uv.lock`` has them, in one folder.

    Args:
        project: the project of the workspace whose dependencies they are.
        extras: of it.
        group: instead, a dependency group of the whole project.
    """

    project: str | None = None
    extras: list[str] = Field(default_factory=list)
    group: str | None = None
    expected_seconds: float = 60

    @model_validator(mode="after")
    def is_of_one_thing(self) -> "PythonSet":
        if (self.project is None) == (self.group is None):
            raise ValueError("give either project or group")
        return self


class Recipe(Pin):
    """One image. Paths are those in the image.

    Args:
        packages: sets of Debian packages.
        packages_of: programs of the release that come in Debian packages: those packages.
        python: sets of Python distributions, found by Debian's Python.
        services: our own services (folders of ``services/``), with their commands in /usr/local/bin.
        programs: programs of the release, and where they lie.
        files: a file or a folder -> where it comes from: ``layer:path in its module``, ``project:path``, or
            ``trained:``, the models.
        applets: commands of busybox.
        links: path -> target.
        folders: path -> mode.
        authorities: whether the usual certificate authorities are needed.
    """

    packages: list[str] = Field(default_factory=list)
    packages_of: list[str] = Field(default_factory=list)
    python: list[str] = Field(default_factory=list)
    services: list[str] = Field(default_factory=list)
    programs: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    applets: list[str] = Field(default_factory=list)
    links: dict[str, str] = Field(default_factory=dict)
    folders: dict[str, str] = Field(default_factory=dict)
    authorities: bool = False
    user: str = ""
    entrypoint: list[str] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    workdir: str = ""

    def layers_used(self) -> list[str]:
        """Layers of the release out of whose modules files are taken."""
        return sorted({layer for layer, _ in map(split_source, self.files.values()) if layer not in (PROJECT, TRAINED)})


class Recipes(Pin):
    """All recipes, and the sets they are made of."""

    packages: dict[str, PackageSet]
    python: dict[str, PythonSet]
    accounts: dict[str, int]
    images: dict[str, Recipe]

    @model_validator(mode="before")
    @classmethod
    def short_sets(cls, content: dict[str, object]) -> dict[str, object]:
        """A set of packages is written as a list."""
        sets = content.get("packages")
        if not isinstance(sets, Mapping):
            return content
        return {**content, "packages": {name: {"packages": packages} for name, packages in sets.items()}}

    @model_validator(mode="after")
    def names_what_is_there(self) -> "Recipes":
        for name, recipe in self.images.items():
            for kind, used, known in (
                ("packages", recipe.packages, self.packages),
                ("python", recipe.python, self.python),
            ):
                if unknown := set(used) - set(known):
                    raise ValueError(f"image {name}: no {kind} {', '.join(sorted(unknown))}")
        return self

    def package_sets(self, names: Sequence[str]) -> list[Item]:
        return [self.packages[name].model_copy(update={"name": f"packages-{name}"}) for name in names]

    def python_sets(self, recipe: Recipe) -> list[Item]:
        return [self.python[name].model_copy(update={"name": f"python-{name}"}) for name in recipe.python]


def split_source(source: str) -> tuple[str, str]:
    """``istio:manifests/charts`` -> layer and path."""
    layer, _, path = source.partition(":")
    return layer, path


@cache
def known() -> Recipes:
    """The recipes of this checkout."""
    return of_checkout(manifests_dir() / "images.yaml", Recipes)
