"""Which layers a platform consists of: what each has, what was asked for, and what can be had."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from inferencebox.layers.catalogue import Layer

Obstacle = Callable[[str], str | None]
"""Name of an image -> why it can't be had; none if it can."""


@dataclass(frozen=True)
class Choice:
    """
    Args:
        layers: what the platform consists of, by name.
        left_out: capability -> why the layer that gives it is none of them: an image of it can't be had.
    """

    layers: Mapping[str, Layer]
    left_out: Mapping[str, str]

    @property
    def given(self) -> dict[str, str | None]:
        """Capabilities that are one layer's to give, of all that were chosen: none if there, or why not."""
        return {**{layer.gives: None for layer in self.layers.values() if layer.gives}, **self.left_out}

    def without(self, names: Collection[str]) -> "Choice":
        """The same, but for these layers."""
        return Choice({name: layer for name, layer in self.layers.items() if name not in names}, self.left_out)


def choose(known: Mapping[str, Layer], asked: Collection[str], there: Collection[str], obstacle: Obstacle) -> Choice:
    """What every platform has, what was asked for and what is there already, with what those come after.

    Args:
        known: all layers.
        asked: options (`Layer.option`).
        there: layers that the platform has: they are not taken away, and nothing is asked for their sake.
        obstacle: is asked for the images of layers that may be left out, and for no others.
    """
    open_ = [name for name, layer in known.items() if not layer.option or layer.option in asked or name in there]
    chosen: set[str] = set()
    while open_:
        name = open_.pop()
        if name not in chosen:
            chosen.add(name)
            open_ += known[name].after
    spared = {name: why for name in sorted(chosen - set(there)) if (why := _why_left_out(known[name], obstacle))}
    kept = {name: layer for name, layer in known.items() if name in chosen and name not in spared}
    return Choice(kept, {known[name].gives: why for name, why in spared.items()})


def sparable(known: Mapping[str, Layer]) -> frozenset[str]:
    """Images that a platform can do without."""
    return frozenset(image for layer in known.values() if layer.gives for image in layer.images.values())


def _why_left_out(layer: Layer, obstacle: Obstacle) -> str | None:
    if not layer.gives:
        return None
    return next((why for image in layer.images.values() if (why := obstacle(image))), None)
