"""Where images come from: their vendor's registry by digest, or put together here from the same programs."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferencebox.images import archive
from inferencebox.images.python import SET, Python
from inferencebox.images.recipes import PROJECT, TRAINED, Recipe, Recipes, split_source
from inferencebox.images.tree import Tree
from inferencebox.paths import project_root
from inferencebox.programs.commands import Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.provision import Provisioner
from inferencebox.programs.registry import Image, probe, split_reference
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.programs.store import digest_of
from inferencebox.providers.local.models import trained_models
from inferencebox.release import IMAGE_PREFIX, ImagePin, Item, Release

ARCHIVE = "image.tar"
SITE = "/usr/lib/python3/dist-packages"
BUSYBOX = "busybox"
AUTHORITIES = "authorities"
CERTIFICATES = "usr/share/ca-certificates/mozilla"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
COMMAND = """#!/usr/bin/python3
import sys

from {module} import {function}

sys.exit({function}())
"""


class PulledImages:
    """Pulls images over the registry's API. No engine is needed."""

    name = "registry"
    needs_bytes = 2 << 30
    uses_all_cores = False

    def offers(self, item: Item) -> bool:
        return isinstance(item, ImagePin) and item.digest is not None

    def obstacle(self, item: Item) -> Unavailable | None:
        why = probe(split_reference(_pin(item).reference)[0])
        return Unavailable(why, "use a bundle (ibox bundle), or a machine that reaches the registry") if why else None

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        return {"digest": _pin(item).digest, "reference": _pin(item).reference}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        pin = _pin(item)
        image = Image(pin.reference, str(pin.digest))
        layers = [image.download(layer, work / f"layer-{number}") for number, layer in enumerate(image.layers())]
        folder = work / "out"
        folder.mkdir()
        archive.pack(folder / ARCHIVE, pin.reference, image.configuration(), layers)
        return Made(folder, ARCHIVE, {"digest": str(pin.digest), "reference": pin.reference})


def _is_trained(source: str) -> bool:
    return split_source(source)[0] == TRAINED


def _origin(source: str, there: Mapping[str, Path]) -> Path:
    """Where an image's file comes from on this machine."""
    layer, inside = split_source(source)
    if layer == TRAINED:
        return trained_models()
    return (project_root() if layer == PROJECT else there[f"files-{layer}"]) / inside


@dataclass(frozen=True)
class Ingredients:
    """What the recipes' words stand for in one release.

    Args:
        recipes: ``manifests/images.yaml``.
        release: whose programs and files go into the images.
        provisioner: gets them, never from PATH: an image holds what is pinned.
    """

    recipes: Recipes
    release: Release
    provisioner: Provisioner

    def recipe(self, image: Item) -> Recipe | None:
        return self.recipes.images.get(image.name.removeprefix(IMAGE_PREFIX))

    def items(self, recipe: Recipe) -> list[Item]:
        """Everything that has to be there before the image can be put together."""
        files = [self.release.files_of(layer) for layer in recipe.layers_used()]
        programs = self.release.select([*recipe.programs, *recipe.packages_of])
        packages = self.recipes.package_sets([*recipe.packages, *_implied(recipe)])
        return [*programs, *files, *packages, *self.recipes.python_sets(recipe)]

    def keys(self, recipe: Recipe) -> dict[str, list[str]]:
        return {item.name: self.provisioner.keys(item) for item in self.items(recipe)}

    def get(self, recipes: Sequence[Recipe]) -> dict[str, Path]:
        """All that these recipes need, what is missing made together."""
        items = {item.name: item for recipe in recipes for item in self.items(recipe)}
        return self.provisioner.provide(items.values())


class AssembledImages:
    """Puts images together as their recipes say. Neither root nor an engine is needed.

    Args:
        ingredients: what recipes are made of.
        commands: what modules are compiled with.
    """

    name = "recipe"
    needs_bytes = 2 << 30
    uses_all_cores = False

    def __init__(self, ingredients: Ingredients, commands: Commands) -> None:
        self._ingredients = ingredients
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return isinstance(item, ImagePin) and self._ingredients.recipe(item) is not None

    def obstacle(self, item: Item) -> Unavailable | None:
        return None

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        recipe = self._recipe(item)
        own = [path for path in map(split_source, recipe.files.values()) if path[0] == PROJECT]
        folders = [project_root() / path for _, path in own] + [_service(name) for name in recipe.services]
        return {
            "reference": _pin(item).reference,
            "recipe": recipe.model_dump(),
            "accounts": self._ingredients.recipes.accounts,
            "ingredients": self._ingredients.keys(recipe),
            "files": {str(path.relative_to(project_root())): digest_of(path) for path in _files(folders)},
            "trained": [trained_models().name for source in recipe.files.values() if _is_trained(source)],
        }

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        recipe = self._recipe(item)
        there = self._ingredients.get([recipe])
        folder = work / "out"
        folder.mkdir()
        layers = [
            *self._packages(recipe, there),
            *([_site(recipe, there)] if recipe.python else []),
            self._rest(recipe, there),
        ]
        if SET in recipe.packages:
            python = Python(there[f"packages-{SET}"], self._commands)
            _compile(python, item.name, layers[-1], work / "modules")
        config = {
            "Entrypoint": recipe.entrypoint,
            "Cmd": recipe.command,
            "Env": [f"{name}={value}" for name, value in recipe.environment.items()],
            "User": recipe.user,
            "WorkingDir": recipe.workdir,
        }
        reference = _pin(item).reference
        archive.assemble(folder / ARCHIVE, reference, layers, config)
        return Made(folder, ARCHIVE, {"reference": reference})

    def _recipe(self, item: Item) -> Recipe:
        recipe = self._ingredients.recipe(item)
        assert recipe
        return recipe

    def _packages(self, recipe: Recipe, there: Mapping[str, Path]) -> list[Tree]:
        """The layer of Debian packages."""
        roots = [there[f"packages-{name}"] for name in recipe.packages]
        roots += [there[name].parent.parent / "root" for name in recipe.packages_of]
        if not roots:
            return []
        tree = Tree()
        for root in roots:
            tree.graft(root)
        return [tree]

    def _rest(self, recipe: Recipe, there: Mapping[str, Path]) -> Tree:
        """The layer of what is particular to the image."""
        tree = Tree()
        self._furnish(tree, recipe, there)
        for name in recipe.services:
            _add_service(tree, _service(name))
        for name, path in recipe.programs.items():
            tree.add(path, there[name], 0o755)
        for path, source in recipe.files.items():
            origin = _origin(source, there)
            tree.graft(origin, path, compiled=False) if origin.is_dir() else tree.add(path, origin)
        for path, mode in recipe.folders.items():
            tree.folder(path, int(mode, 8))
        for path, target in recipe.links.items():
            tree.link(path, target)
        return tree

    def _furnish(self, tree: Tree, recipe: Recipe, there: Mapping[str, Path]) -> None:
        """What programs expect of any machine: accounts, names, a place for temporary files."""
        accounts = self._ingredients.recipes.accounts
        lines = [f"{name}:x:{number}:{number}:{name}:/:/sbin/nologin\n" for name, number in accounts.items()]
        tree.write("/etc/passwd", "".join(lines))
        tree.write("/etc/group", "".join(f"{name}:x:{number}:\n" for name, number in accounts.items()))
        tree.write("/etc/nsswitch.conf", "hosts: files dns\n")
        tree.folder("/tmp", 0o1777)
        if recipe.applets:
            tree.graft(there[f"packages-{BUSYBOX}"])
            for applet in recipe.applets:
                tree.link(f"/usr/bin/{applet}", BUSYBOX)
        if recipe.authorities:
            certificates = sorted((there[f"packages-{AUTHORITIES}"] / CERTIFICATES).glob("*.crt"))
            tree.write(BUNDLE, "".join(file.read_text() for file in certificates))


def _implied(recipe: Recipe) -> list[str]:
    """Sets of packages that a recipe needs without naming them."""
    return [name for name, needed in ((BUSYBOX, recipe.applets), (AUTHORITIES, recipe.authorities)) if needed]


def _pin(item: Item) -> ImagePin:
    assert isinstance(item, ImagePin)
    return item


def _site(recipe: Recipe, there: Mapping[str, Path]) -> Tree:
    tree = Tree()
    for name in recipe.python:
        tree.graft(there[f"python-{name}"], SITE)
    return tree


def _compile(python: Python, name: str, tree: Tree, work: Path) -> None:
    """Add what Python makes of the modules in a layer."""
    work.mkdir()
    for path, source in tree.modules().items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).symlink_to(source)
    python.compile(name, work)
    for compiled in work.rglob("*.pyc"):
        tree.add(compiled.relative_to(work).as_posix(), compiled, 0o644)


def _service(name: str) -> Path:
    return project_root() / "services" / name


def _add_service(tree: Tree, home: Path) -> None:
    """A service's modules, and its commands."""
    for path in _files([home / "src"]):
        tree.add(f"{SITE}/{path.relative_to(home / 'src')}", path, 0o644)
    project = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    for command, target in project.get("scripts", {}).items():
        module, _, function = target.partition(":")
        tree.write(f"/usr/local/bin/{command}", COMMAND.format(module=module, function=function), 0o755)


def _files(folders: Sequence[Path]) -> list[Path]:
    """Files below folders, without what Python leaves there."""
    found = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*"))]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
