"""The digests of a release's images: asked of their registries, and written into its file, whose other text stays."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from inferencebox.errors import SetupProblem
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.progress import Progress
from inferencebox.programs.registry import digest_of, probe, split_reference
from inferencebox.release import OUR_IMAGES
from inferencebox.replacing import replace_file

AT_ONCE = 4
REFERENCE, DIGEST = "reference", "digest"


@dataclass(frozen=True)
class Mention:
    """A place of a release file that names an image.

    Args:
        reference: ``host/repository:tag``.
        digest: that the file has; none if it has none.
        start, end: characters of the file that a digest takes the place of.
        before: what has to stand before it there.
    """

    reference: str
    digest: str | None
    start: int
    end: int
    before: str = ""


@dataclass(frozen=True)
class ReleaseFile:
    """A release's file as it is written."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> "ReleaseFile":
        return cls(path, path.read_text())

    @cached_property
    def mentions(self) -> list[Mention]:
        """Each image of others that the file itself names, in its order."""
        found = {each.start: each for each in _mentions(self.text, yaml.compose(self.text))}  # once, however often used
        return [found[start] for start in sorted(found) if not found[start].reference.startswith(OUR_IMAGES)]

    @property
    def references(self) -> list[str]:
        return list(dict.fromkeys(each.reference for each in self.mentions))

    @property
    def pinned(self) -> set[str]:
        """References that have a digest wherever they stand."""
        without = {each.reference for each in self.mentions if each.digest is None}
        return set(self.references) - without

    def unlike(self, digests: Mapping[str, str]) -> list[Mention]:
        """Mentions with another digest than that."""
        return [
            each for each in self.mentions if each.digest and digests.get(each.reference, each.digest) != each.digest
        ]

    def with_digests(self, digests: Mapping[str, str]) -> "ReleaseFile":
        """The same with a digest wherever there was none and it is known."""
        text = self.text
        for each in reversed(self.mentions):
            if each.digest is None and each.reference in digests:
                text = f"{text[: each.start]}{each.before}{digests[each.reference]}{text[each.end :]}"
        return ReleaseFile(self.path, text)

    def save(self) -> None:
        """Write it, whole or not at all."""
        try:
            replace_file(self.path, self.text)
        except OSError as problem:
            raise SetupProblem(f"{self.path} cannot be written: {problem.strerror}", "make it writable") from problem


@dataclass
class Told:
    """What registries said.

    Args:
        digests: reference -> digest of what is under its tag now.
        silent: reference -> why its registry did not say.
    """

    digests: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


def ask(references: Iterable[str], progress: Progress) -> Told:
    """Ask the registry of each; a registry that does not answer is not asked for the next."""
    wanted, told = list(references), Told()

    def one(reference: str) -> None:
        progress.begin(reference, "", "asking its registry", 1)
        try:
            told.digests[reference] = digest_of(reference)
            progress.end(reference, told.digests[reference])
        except Unavailable as why:
            told.silent[reference] = why.reason
            progress.end(reference, f"left as it is: {why.reason}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(probe, {split_reference(reference)[0] for reference in wanted}))
        list(pool.map(one, wanted))
    return told


def _mentions(text: str, node: yaml.Node | None) -> Iterator[Mention]:
    if isinstance(node, yaml.MappingNode):
        said = {key.value: (key, value) for key, value in node.value}
        if REFERENCE in said and isinstance(said[REFERENCE][1], yaml.ScalarNode):
            yield _mention(text, node, said)
        for _, value in node.value:
            yield from _mentions(text, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mentions(text, value)


def _mention(text: str, node: yaml.MappingNode, said: Mapping[str, tuple[yaml.Node, yaml.Node]]) -> Mention:
    key, reference = said[REFERENCE]
    if DIGEST in said:
        digest = said[DIGEST][1]
        start, end = digest.start_mark.index, digest.end_mark.index
        known = None if digest.tag.endswith(":null") else str(digest.value)
        return Mention(reference.value, known, start, end, "" if end > start else " ")
    if node.flow_style:
        end = node.value[-1][1].end_mark.index
        return Mention(reference.value, None, end, end, f", {DIGEST}: ")
    end = text.find("\n", reference.end_mark.index)
    end = len(text) if end < 0 else end
    return Mention(reference.value, None, end, end, f"\n{' ' * key.start_mark.column}{DIGEST}: ")
