"""What is published right now, kept up to date by watching the API, so that a key is judged without asking anybody."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from management import keys
from management.kube import PUBLICATIONS, SECRETS, Json, Kube, KubeDown, KubeError
from management.publication import ACTIVE, OPENAI_PATHS, Publication
from management.schemas import Usage
from management.settings import Settings
from management.tokens import Counters, Reading, added, kept

log = logging.getLogger("management.register")

Id = tuple[str, str]
FLUSH_SECONDS = 2.0


@dataclass
class Counted:
    """Requests of a publication that the API does not know of yet."""

    requests: int = 0
    last: float = 0.0


@dataclass
class Register:
    """Publications, their keys and addresses, and what was counted.

    While the API is away what was known last goes on being true: published models stay usable.
    """

    kube: Kube
    settings: Settings
    publications: dict[Id, Publication] = field(default_factory=dict)
    _keys: dict[Id, tuple[int, tuple[keys.KeyRecord, ...]]] = field(default_factory=dict)
    _by_digest: dict[str, tuple[Id, keys.KeyRecord]] = field(default_factory=dict)
    _by_address: dict[tuple[str, str], Id] = field(default_factory=dict)
    _counted: dict[Id, Counted] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _reading: Reading | None = None

    @property
    def ready(self) -> bool:
        """Whether both lists were read at least once."""
        return len(self._seen) == 2

    # --- asking

    def by_key(self, key: str) -> Publication | None:
        """The active publication that a good key belongs to."""
        found = self._by_digest.get(keys.digest(key))
        if found is None:
            return None
        publication = self.publications.get(found[0])
        if publication is None or publication.phase != ACTIVE or not found[1].good(time.time()):
            return None
        return publication

    def opens(self, publication: Publication, host: str, path: str) -> bool:
        """Whether this address is the publication's."""
        if publication.kind == "openai":
            return host == publication.host and path in OPENAI_PATHS
        return self._by_address.get((host, path)) == publication.id

    def records(self, id: Id) -> tuple[keys.KeyRecord, ...]:
        return self._keys.get(id, (0, ()))[1]

    # --- counting

    def count(self, publication: Publication) -> None:
        counted = self._counted.setdefault(publication.id, Counted())
        counted.requests += 1
        counted.last = time.time()

    def usage(self, publication: Publication) -> Usage:
        """What the API knows, and what was counted since; of tokens nothing while nobody says how many there were."""
        usage = _added(publication.usage, self._counted.get(publication.id, Counted()))
        told = self._reading is not None and self._reading.fresh
        return usage.model_copy(update={"tokens_used": self._with_tokens(publication)[0] if told else None})

    async def flush(self) -> None:
        """Write what was counted. What can't be written is kept for the next time."""
        for id, publication in list(self.publications.items()):
            taken = self._counted.pop(id, Counted())
            if taken.requests == 0 and self._with_tokens(publication)[1] == publication.counters:
                continue
            try:
                await self._write_usage(id, taken)
            except (KubeDown, KubeError) as problem:
                if isinstance(problem, KubeError) and problem.status == 404:
                    self._counted.pop(id, None)
                    continue
                waiting = self._counted.setdefault(id, Counted())
                waiting.requests += taken.requests
                waiting.last = max(waiting.last, taken.last)

    async def _write_usage(self, id: Id, counted: Counted) -> None:
        """Added to what stands there now; the version makes two writers take turns."""
        document = await self.kube.get(PUBLICATIONS, *id)
        publication = Publication.of(document)
        used, counters = self._with_tokens(publication)
        if counted.requests == 0 and counters == publication.counters:
            return  # another replica was first
        usage = _added(publication.usage, counted).model_copy(update={"tokens_used": used})
        change = {
            "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
            "status": {"usage": usage.model_dump(by_alias=True), "tokenCounters": kept(counters) or None},
        }
        self.learn(await self.kube.patch(PUBLICATIONS, *id, change, subresource="status"))

    def _with_tokens(self, publication: Publication) -> tuple[int | None, Counters]:
        """Tokens used, and how far the gateway's counters were read, as last told; None where nobody ever did."""
        used, counters = publication.usage.tokens_used, publication.counters
        if self._reading is None or publication.kind != "openai":
            return used, counters
        return added(used or 0, counters, publication.uid, self._reading)

    # --- learning

    def learn_tokens(self, reading: Reading) -> None:
        """What the gateway has counted by now."""
        self._reading = reading

    def learn(self, document: Json) -> Publication:
        """An object `PublishedModel` as it is now; an older one than is known changes nothing."""
        publication = Publication.of(document)
        known = self.publications.get(publication.id)
        if known is None or known.version <= publication.version or known.uid != publication.uid:
            self.publications[publication.id] = publication
            self._index()
        return publication

    def learn_keys(self, secret: Json) -> None:
        namespace, _, model = secret["metadata"]["name"].partition(".")
        version = int(secret["metadata"].get("resourceVersion", "0"))
        if model and version >= self._keys.get((namespace, model), (0, ()))[0]:
            self._keys[namespace, model] = version, tuple(keys.of_secret(secret))
            self._index()

    def forget(self, id: Id) -> None:
        self.publications.pop(id, None)
        self._keys.pop(id, None)
        self._counted.pop(id, None)
        self._index()

    def _index(self) -> None:
        self._by_digest = {record.digest: (id, record) for id, (_, records) in self._keys.items() for record in records}
        self._by_address = {each.address: each.id for each in self.publications.values()}

    # --- staying up to date

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_publications())
            group.create_task(self._follow_keys())
            group.create_task(self._keep_flushing())

    async def _follow_publications(self) -> None:
        async for kind, thing in self.kube.follow(PUBLICATIONS):
            if kind == "LISTED":
                self._seen.add("publications")
                there = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in thing["items"]}
                for id in [id for id in self.publications if id not in there]:
                    self.forget(id)
                for each in thing["items"]:
                    self.learn(each)
            elif kind == "DELETED":
                gone = Publication.of(thing)
                if (known := self.publications.get(gone.id)) and known.uid == gone.uid:
                    self.forget(gone.id)
            else:
                self.learn(thing)

    async def _follow_keys(self) -> None:
        async for kind, thing in self.kube.follow(SECRETS, self.settings.namespace):
            if kind == "LISTED":
                self._seen.add("keys")
                there = {tuple(each["metadata"]["name"].split(".", 1)) for each in thing["items"]}
                for id in [id for id in self._keys if id not in there]:
                    del self._keys[id]
                self._index()
                for each in thing["items"]:
                    self.learn_keys(each)
            elif kind == "DELETED":
                namespace, _, model = thing["metadata"]["name"].partition(".")
                version = int(thing["metadata"].get("resourceVersion", "0"))
                if version >= self._keys.get((namespace, model), (0, ()))[0]:
                    self._keys.pop((namespace, model), None)
                    self._index()
            else:
                self.learn_keys(thing)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


def _added(usage: Usage, counted: Counted) -> Usage:
    if counted.requests == 0:
        return usage
    last = datetime.fromtimestamp(counted.last, UTC)
    same_day = (usage.last_access_time or "")[:10] == last.date().isoformat()
    return Usage(
        total_requests=usage.total_requests + counted.requests,
        requests_today=(usage.requests_today if same_day else 0) + counted.requests,
        tokens_used=usage.tokens_used,
        last_access_time=last.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def clash(publication: Publication, others: Sequence[Publication]) -> Publication | None:
    """An older publication with the same address. Of two made at the same time exactly one sees the other as older."""
    for other in others:
        if other.uid != publication.uid and _same_address(publication, other) and _older(other, publication):
            return other
    return None


def _same_address(one: Publication, other: Publication) -> bool:
    if one.kind == other.kind == "openai":
        return one.host == other.host and one.model == other.model
    return one.address == other.address


def _older(one: Publication, other: Publication) -> bool:
    if (one.phase == ACTIVE) != (other.phase == ACTIVE):
        return one.phase == ACTIVE
    return (one.created, one.uid) < (other.created, other.uid)
