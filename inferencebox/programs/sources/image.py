"""Programs out of their vendors' container images."""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferencebox.programs.errors import Unavailable
from inferencebox.programs.registry import FIX, Image
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.programs.sources.path import says_its_version
from inferencebox.programs.unpack import Layers, NotInImage
from inferencebox.release import ImageSource, Item


class ImagePrograms:
    """Pulls an image by digest and takes the wanted programs out of it."""

    name = "image"
    needs_bytes = 1 << 30
    uses_all_cores = False

    def offers(self, item: Item) -> bool:
        return item.image is not None

    def obstacle(self, item: Item) -> Unavailable | None:
        if _image(item).digest:
            return None
        return Unavailable("the release has no digest for it", "add the digest of the vendor's image to the release")

    def batch(self, item: Item) -> str:
        return f"image-{(_image(item).digest or '').removeprefix('sha256:')}"

    def recipe(self, item: Item) -> Mapping[str, Any]:
        return {"image": _image(item).digest, "path": _image(item).path}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        source = _image(items[0])
        assert source.digest
        image = Image(source.reference, source.digest)
        files = [image.download(layer, work / f"layer-{number}") for number, layer in enumerate(image.layers())]
        try:
            layers = Layers(files)
        except tarfile.TarError as error:
            raise Unavailable(f"{source.reference} has a layer that cannot be read ({error})", FIX) from error
        return each(items, lambda item: self._take(item, layers, work))

    def _take(self, item: Item, layers: Layers, work: Path) -> Made:
        source = _image(item)
        folder = work / f"made-{item.name}"
        folder.mkdir()
        program = folder / item.name
        try:
            layers.extract(source.path, program)
        except NotInImage as error:
            raise Unavailable(f"{source.reference} has no {source.path}", "correct the path in the release") from error
        program.chmod(0o755)
        if item.version_check and not says_its_version(program, item.version_check):
            raise Unavailable(f"the program in {source.reference} is another version, or does not run here", FIX)
        return Made(folder, item.name, {"image": source.reference, "digest": str(source.digest)})


def _image(item: Item) -> ImageSource:
    assert item.image
    return item.image
