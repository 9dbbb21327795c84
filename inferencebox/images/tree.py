"""The file tree of an image layer, and its tar file: the same files give the same bytes."""

import hashlib
import io
import posixpath
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib32", "lib64")
"""Debian's folders that are links into /usr; packages of Debian 12 still have files in both places."""
FOLDER_MODE = 0o755
SCRIPT = b"#!"
COMPILED = "__pycache__"


@dataclass(frozen=True)
class Node:
    """What is at one path: a file's content or where to read it, a link's target, or a folder."""

    mode: int
    source: Path | None = None
    content: bytes = b""
    link: str | None = None
    folder: bool = False


@dataclass
class Tree:
    """Files by their path in the image. What is added later covers what was there."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def add(self, path: str, source: Path, mode: int | None = None) -> None:
        """One file; programs and scripts keep their right to be run."""
        self._put(path, Node(mode or _mode_of(source), source=source))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self._put(path, Node(mode, content=text.encode()))

    def link(self, path: str, target: str) -> None:
        self._put(path, Node(0o777, link=target))

    def folder(self, path: str, mode: int = FOLDER_MODE) -> None:
        self._put(path, Node(mode, folder=True))

    def graft(self, root: Path, at: str = "/", compiled: bool = True) -> None:
        """Everything below a folder of this machine.

        Args:
            root: the folder.
            at: where it is in the image.
            compiled: also what Python has made of modules; what is there may be another Python's.
        """
        for source in sorted(root.rglob("*")):
            if COMPILED in source.parts and not compiled:
                continue
            path = posixpath.join(at, source.relative_to(root).as_posix())
            if source.is_symlink():
                self.link(path, str(source.readlink()))
            elif source.is_dir():
                self.folder(path, source.stat().st_mode & 0o7777 | 0o700)
            elif source.is_file():
                self.add(path, source, source.stat().st_mode & 0o7777)

    def modules(self) -> dict[str, Path]:
        """The files that Python may import, and where they come from."""
        return {path: node.source for path, node in self.nodes.items() if node.source and path.endswith(".py")}

    def save(self, target: Path) -> str:
        """Write the layer; its sha256."""
        nodes = {**self._parents(), **self.nodes}
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(nodes):
                _append(archive, path, nodes[path])
        with target.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def _put(self, path: str, node: Node) -> None:
        inside = posixpath.normpath(posixpath.join("/", path)).lstrip("/")
        first, _, rest = inside.partition("/")
        if first in MERGED and rest:
            inside = f"usr/{inside}"
        elif first in MERGED:
            return
        if inside:
            self.nodes[inside] = node

    def _parents(self) -> dict[str, Node]:
        """The folders above what is there, and the links to those in /usr."""
        found: dict[str, Node] = {}
        for path in self.nodes:
            while path := posixpath.dirname(path):
                found[path] = Node(FOLDER_MODE, folder=True)
        links = {name: Node(0o777, link=f"usr/{name}") for name in MERGED if f"usr/{name}" in found}
        return {**found, **links}


def member(path: str, mode: int, size: int = 0) -> tarfile.TarInfo:
    """A tar entry without time and owner."""
    entry = tarfile.TarInfo(path)
    entry.mode = mode
    entry.size = size
    return entry


def _append(archive: tarfile.TarFile, path: str, node: Node) -> None:
    entry = member(path, node.mode)
    if node.folder:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif node.link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, node.link
        archive.addfile(entry)
    elif node.source is not None:
        entry.size = node.source.stat().st_size
        with node.source.open("rb") as content:
            archive.addfile(entry, content)
    else:
        entry.size = len(node.content)
        archive.addfile(entry, io.BytesIO(node.content))


def _mode_of(source: Path) -> int:
    with source.open("rb") as content:
        runs = source.stat().st_mode & 0o100 or content.read(2) == SCRIPT
    return 0o755 if runs else 0o644
