"""Takes single files out of image layers. Nothing else is ever written, so a hostile layer has nowhere to go."""

import posixpath
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_LINKS = 20


class NotInImage(Exception):
    """The image has no regular file of that path."""


@dataclass(frozen=True)
class Node:
    """What the image has at one path: a file in a layer, or a link to another path."""

    layer: int
    member: str
    link: str | None = None


class Layers:
    """The file tree that a stack of layers makes, lowest first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = layers
        self._tree: dict[str, Node] = {}
        for number, layer in enumerate(layers):
            self._apply(number, layer)

    def extract(self, path: str, target: Path) -> None:
        """Write the file that the image has at this path, links followed, to ``target``."""
        node = self._resolve(normal(path))
        with tarfile.open(self._layers[node.layer]) as archive:
            content = archive.extractfile(node.member)
            if content is None:
                raise NotInImage(path)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)

    def _apply(self, number: int, layer: Path) -> None:
        """Add one layer: its whiteouts hide what lower layers have, then its files cover the rest."""
        added: dict[str, Node] = {}
        with tarfile.open(layer) as archive:
            for member in archive:
                path = normal(member.name)
                folder, name = posixpath.split(path)
                if name == OPAQUE:
                    self._hide(folder, itself=False)
                elif name.startswith(WHITEOUT):
                    self._hide(posixpath.join(folder, name.removeprefix(WHITEOUT)), itself=True)
                elif member.isfile():
                    added[path] = Node(number, member.name)
                elif member.islnk():
                    added[path] = Node(number, member.name, normal(member.linkname))
                elif member.issym():
                    added[path] = Node(number, member.name, normal(posixpath.join("/", folder, member.linkname)))
        self._tree.update(added)

    def _hide(self, path: str, itself: bool) -> None:
        for known in list(self._tree):
            if known.startswith(f"{path}/") or not path or (itself and known == path):
                del self._tree[known]

    def _resolve(self, path: str) -> Node:
        """Follow links, of the path's folders too, within the image."""
        for _ in range(MAX_LINKS):
            prefix = next((part for part in _prefixes(path) if part in self._tree and self._tree[part].link), None)
            if prefix is None:
                break
            path = posixpath.normpath(posixpath.join(self._tree[prefix].link or "", path[len(prefix) :].lstrip("/")))
        node = self._tree.get(path)
        if node is None or node.link:
            raise NotInImage(path)
        return node


def normal(path: str) -> str:
    """A path inside the image: relative to its root, and never above it."""
    return posixpath.normpath(posixpath.join("/", path)).lstrip("/")


def _prefixes(path: str) -> list[str]:
    """``a/b/c`` -> a, a/b, a/b/c."""
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
