"""Where images are made: the cache, the sources, and what they share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from inferencebox.images import recipes
from inferencebox.images.python import SET, Python
from inferencebox.images.sets import LockedDistributions, UnpackedPackages
from inferencebox.images.sources import AssembledImages, Ingredients, PulledImages
from inferencebox.paths import cache_dir
from inferencebox.programs.commands import Commands
from inferencebox.programs.progress import Progress, Silent
from inferencebox.programs.provision import Provisioner, sources_for
from inferencebox.programs.registry import why_not
from inferencebox.programs.sources.base import Source
from inferencebox.programs.store import Store
from inferencebox.release import IMAGE_PREFIX, Release


class Workshop:
    """Makes the images of one release.

    Args:
        release: the pins.
        progress: is told what happens.
        again: make images anew even if the cache has them (not the programs in them).
    """

    def __init__(self, release: Release, progress: Progress | None = None, again: bool = False) -> None:
        self.release = release
        self.store = Store(cache_dir())
        self.commands = Commands(self.store.logs)
        self.progress = progress or Silent()
        self.again = again
        self.inside_sources: list[Source] = [
            *sources_for(release, self.store, self.commands),
            UnpackedPackages(self.commands),
            LockedDistributions(self.commands, self._python),
        ]
        self.inside = Provisioner(self.store, self.inside_sources, self.commands, self.progress, use_path=False)
        self._ingredients = Ingredients(recipes.known(), release, self.inside)
        sources: list[Source] = [PulledImages(), AssembledImages(self._ingredients, self.commands)]
        self.images = Provisioner(self.store, sources, self.commands, self.progress, again)

    def obstacle(self, name: str) -> str | None:
        """Why an image can't be had; none if the cache has it, it can be put together, or its registry gives it.

        A registry is asked once in a run, and not at all for what needs none.
        """
        if lack := self.release.lack_of_image(name):
            return lack
        (pin,) = self.release.images_of([name])
        if not self.images.missing([pin]) or self._ingredients.recipe(pin):
            return None
        if pin.digest is None:
            why = (
                f"the release {self.release.name} has no digest for it (ibox releases pin {self.release.name} --write)"
            )
        else:
            why = why_not(pin.reference, pin.digest) or ""
        return f"only a registry has {pin.reference}: {why}" if why else None

    def provide(self, names: Sequence[str]) -> Mapping[str, Path]:
        """Archives by the images' names. What several lack is made together first: one build for many programs."""
        pins = self.release.images_of(names)
        undone = {pin.name for pin in (pins if self.again else self.images.missing(pins))}
        here = [self._ingredients.recipe(pin) for pin in pins if pin.name in undone and not pin.digest]
        self._ingredients.get([recipe for recipe in here if recipe])
        return {name.removeprefix(IMAGE_PREFIX): path for name, path in self.images.provide(pins).items()}

    def _python(self) -> Python:
        """What compiles the modules in images: the Python that will run them."""
        (packages,) = recipes.known().package_sets([SET])
        return Python(self.inside.provide([packages])[packages.name], self.commands)
