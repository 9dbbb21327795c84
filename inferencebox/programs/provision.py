"""Gets programs: looks on PATH and in the cache first, then asks the sources in turn, longest work first."""

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

from inferencebox.errors import SetupProblem
from inferencebox.paths import cache_dir, programs_dir
from inferencebox.programs import toolchain
from inferencebox.programs.commands import Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.progress import Progress
from inferencebox.programs.sources.base import Made, Outcomes, Source
from inferencebox.programs.sources.deb import DebPrograms
from inferencebox.programs.sources.go import GoFiles, GoPrograms
from inferencebox.programs.sources.image import ImagePrograms
from inferencebox.programs.sources.path import find_on_path
from inferencebox.programs.sources.wheel import WheelPrograms
from inferencebox.programs.store import Facts, Store, key_of
from inferencebox.release import Item, Release

DOWNLOADS_AT_ONCE = 3


@dataclass
class Wanted:
    """One item on its way: the sources that may still give it, and why others could not."""

    item: Item
    sources: list[Source]
    refusals: list[str] = field(default_factory=list)
    fix: str = ""

    @property
    def name(self) -> str:
        return self.item.name

    def refuse(self, source: Source, why: Unavailable) -> None:
        self.sources.remove(source)
        self.refusals.append(f"{source.name}: {why.reason}")
        self.fix = why.fix

    def problem(self) -> SetupProblem:
        reasons = "; ".join(self.refusals) or "the release names no source that can be used here"
        return SetupProblem(f"{self.item.name} {self.item.version} is not to be had: {reasons}", self.fix)


def sources_for(release: Release, store: Store, commands: Commands) -> list[Source]:
    """The sources that make something, in the order in which they are tried."""
    programs = programs_dir()
    find_toolchain = partial(_find_toolchain, release, store, commands)
    return [
        ImagePrograms(),
        GoPrograms(programs, find_toolchain, commands),
        WheelPrograms(commands),
        DebPrograms(commands),
        GoFiles(programs, find_toolchain, commands),
    ]


def _find_toolchain(
    release: Release, store: Store, commands: Commands, minimum: tuple[int, ...]
) -> toolchain.Toolchain:
    return toolchain.find(release.toolchain, minimum, store, commands)


class Provisioner:
    """Provides items of one release.

    Args:
        store: the cache.
        sources: in the order in which they are tried.
        commands: what the sources run their commands with; stopped when something fails.
        progress: is told what happens.
        again: make everything anew even if the cache has it.
        use_path: take programs from PATH when they are the pinned version.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        commands: Commands,
        progress: Progress,
        again: bool = False,
        use_path: bool = True,
    ) -> None:
        self._use_path = use_path
        self._store = store
        self._sources = sources
        self._commands = commands
        self._progress = progress
        self._again = again

    def provide(self, items: Iterable[Item]) -> dict[str, Path]:
        """Paths by the items' names."""
        wanted = [self._wanted(item) for item in items]
        found: dict[str, Path] = {}
        with ThreadPoolExecutor() as pool:
            for one, path in zip(wanted, pool.map(self._look, wanted), strict=True):
                if path:
                    found[one.name] = path
        pending = [one for one in wanted if one.name not in found]
        while pending:
            made = self._make_all(pending)
            found.update(made)
            pending = [one for one in pending if one.name not in made]
        return {one.name: found[one.name] for one in wanted}

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """Those that would have to be made."""
        return [item for item in items if not self._look_in_cache(self._wanted(item))]

    def keys(self, item: Item) -> list[str]:
        """What the item is, by each source that could give it."""
        keys = []
        for source in self._wanted(item).sources:
            with suppress(Unavailable):
                keys.append(self._key(source, item))
        return keys

    def _wanted(self, item: Item) -> Wanted:
        return Wanted(item, [source for source in self._sources if source.offers(item)])

    def _look(self, one: Wanted) -> Path | None:
        """What is here already: on PATH, or in the cache from any source."""
        path = find_on_path(one.item) if self._use_path else None
        if path:
            self._progress.end(one.name, f"on PATH: {path}")
            return path
        cached = None if self._again else self._look_in_cache(one)
        if cached:
            self._progress.end(one.name, "in the cache")
        for source in list(one.sources):
            why = None if cached else source.obstacle(one.item)
            if why:
                one.refuse(source, why)
        return cached

    def _look_in_cache(self, one: Wanted) -> Path | None:
        for source in one.sources:
            try:
                key = self._key(source, one.item)
            except Unavailable:
                continue
            entry = self._store.find(one.name, key)
            if entry:
                return entry.path
        return None

    def _make_all(self, pending: Sequence[Wanted]) -> dict[str, Path]:
        """One round: each pending item from the first source that is left for it."""
        batches: dict[str, list[Wanted]] = {}
        for one in pending:
            if not one.sources:
                raise one.problem()
            batches.setdefault(one.sources[0].batch(one.item), []).append(one)
        ordered = sorted(batches.items(), key=lambda batch: self._expected(batch[1]), reverse=True)
        made: dict[str, Path] = {}
        with ThreadPoolExecutor(1) as builds, ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as downloads:
            running: list[Future[dict[str, Path]]] = []
            try:
                for name, batch in ordered:
                    pool = builds if batch[0].sources[0].uses_all_cores else downloads
                    running.append(pool.submit(self._make_batch, name, batch))
                _first_failure(running)
            except BaseException:
                for future in running:
                    future.cancel()
                self._commands.stop()
                raise
        for future in running:
            made.update(future.result())
        return made

    def _make_batch(self, name: str, batch: Sequence[Wanted]) -> dict[str, Path]:
        """Make what another run has not made in the meantime."""
        source = batch[0].sources[0]
        with self._store.lock(name, on_wait=lambda: self._begin(batch, "waiting for another run")):
            found = {} if self._again else {one.name: path for one in batch if (path := self._look_in_cache(one))}
            missing = [one for one in batch if one.name not in found]
            if missing:
                found.update(self._make(name, source, missing))
        return found

    def _make(self, name: str, source: Source, batch: Sequence[Wanted]) -> dict[str, Path]:
        self._begin(batch, f"from {source.name}")
        began = monotonic()
        with self._store.workspace(name, source.needs_bytes) as work:
            outcomes = self._ask(source, batch, work)
            seconds = round(monotonic() - began, 1)
            paths = {}
            for one in batch:
                outcome = outcomes[one.name]
                if isinstance(outcome, Unavailable):
                    one.refuse(source, outcome)
                    self._progress.end(one.name, f"not from {source.name}: {outcome.reason}")
                else:
                    paths[one.name] = self._publish(source, one.item, outcome, seconds)
                    self._progress.end(one.name, f"made from {source.name}")
        return paths

    def _ask(self, source: Source, batch: Sequence[Wanted], work: Path) -> Outcomes:
        try:
            return source.make([one.item for one in batch], work)
        except Unavailable as why:
            return {one.name: why for one in batch}

    def _publish(self, source: Source, item: Item, made: Made, seconds: float) -> Path:
        facts = Facts(item.name, item.version, source.name, made.program, seconds, made.made_with)
        return self._store.publish(self._key(source, item), made.folder, facts).path

    def _begin(self, batch: Sequence[Wanted], doing: str) -> None:
        for one in batch:
            self._progress.begin(one.name, one.item.version, doing, self._expected([one]))

    def _expected(self, batch: Sequence[Wanted]) -> float:
        return max(self._store.last_seconds(one.name) or one.item.expected_seconds for one in batch)

    def _key(self, source: Source, item: Item) -> str:
        return key_of({"source": source.name, **source.recipe(item)})


def _first_failure(running: Sequence["Future[dict[str, Path]]"]) -> None:
    """Wait for all, but not for the others once one has failed."""
    done, _ = wait(running, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()


def provisioner(release: Release, progress: Progress, again: bool = False, use_path: bool = True) -> Provisioner:
    """The provisioner for this machine's cache."""
    store = Store(cache_dir())
    commands = Commands(store.logs)
    return Provisioner(store, sources_for(release, store, commands), commands, progress, again, use_path)
