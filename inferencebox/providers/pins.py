"""What a platform's release said when it was brought up: kept beside it, for a release's file may change meanwhile."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inferencebox.release import Release
from inferencebox.replacing import replace_file

FILE = "release.json"
ABOUT = {"purpose", "expected_seconds"}
"""Fields that change nothing of what runs."""


def path(state: Path) -> Path:
    """Where it is kept, in the folder of the platform."""
    return state / FILE


def write(file: Path, release: Release) -> None:
    """Write it down whole, as a file that `Release.load` takes."""
    replace_file(file, release.model_dump_json(exclude_defaults=True))


def reference(state: Path, name: str) -> str:
    """By what `Release.load` finds what runs.

    Args:
        name: of the release, for a platform that another machine brought up.
    """
    return str(path(state)) if path(state).exists() else name


def read(state: Path, name: str) -> Release:
    """What runs; `name` as above."""
    return Release.load(reference(state, name))


def changed_layers(before: Release, after: Release) -> list[str]:
    """Layers of which the two do not pin the same."""
    names = dict.fromkeys([*before.layers, *after.layers])
    return [name for name in names if _pinned(before, name) != _pinned(after, name)]


def changed_images(before: Release, after: Release, names: Iterable[str]) -> list[str]:
    """Those of these images of which the two do not pin the same."""
    return [name for name in names if _reference(before, name) != _reference(after, name)]


def _pinned(release: Release, layer: str) -> dict[str, Any] | None:
    """What decides what runs, without what is said about it."""
    if layer not in release.layers:
        return None
    pin = release.layers[layer].model_dump(exclude=ABOUT)
    return {**pin, "programs": {name: _without(program) for name, program in pin["programs"].items()}}


def _without(program: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in program.items() if key not in ABOUT}


def _reference(release: Release, image: str) -> tuple[str, str | None] | None:
    pin = release.images.get(image)
    return (pin.reference, pin.digest) if pin else None
