"""Publishing in steps, each of which can fail or be the last one before the process is killed.

The claim (`PublishedModel`, with a finalizer) is made first and says `Publishing`; keys open nothing until it says
`Active`, which is the last step. What fails is taken back at once; what was left half done by a process that died is
taken back by `recover`, at the next start and then every few seconds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from management import keys
from management.documentation import documentation
from management.errors import ApiError
from management.kube import AI_BACKENDS, BACKENDS, PUBLICATIONS, SECRETS, Kube, KubeDown, KubeError
from management.publication import (
    ACTIVE,
    FINALIZER,
    MANAGED,
    PUBLISHING,
    REMOVING,
    Publication,
    anchor,
    everything,
    key_secret,
    objects,
)
from management.register import Register, clash
from management.schemas import RESERVED, ConfigChange
from management.settings import Settings

log = logging.getLogger("management.publisher")
T = TypeVar("T")

RECOVER_SECONDS = 5.0
ABANDONED_SECONDS = 120.0


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Publisher:
    kube: Kube
    register: Register
    settings: Settings
    _busy: set[tuple[str, str]] = field(default_factory=set)

    async def publish(self, wished: Publication) -> tuple[Publication, str]:
        """The publication and its key, when all of it is there.

        Raises:
            ApiError: 400 for an address that can't be had, 409 if it or the model is taken, 503 if a step failed.
        """
        self._check_address(wished)
        if wished.id in self._busy:
            raise _published_already(wished)
        self._busy.add(wished.id)
        try:
            claimed = await self._claim(wished)
            try:
                return await self._build(claimed)
            except BaseException as problem:
                await self._take_back(claimed)
                raise _step_failed(problem) from problem
        finally:
            self._busy.discard(wished.id)

    async def _claim(self, wished: Publication) -> Publication:
        try:
            made = await self.kube.create(PUBLICATIONS, anchor(wished, self.settings.instance))
        except KubeError as error:
            if error.status == 409:
                raise _published_already(wished) from None
            raise _step_failed(_Step("claim", error)) from error
        return Publication.of(made)

    async def _build(self, claimed: Publication) -> tuple[Publication, str]:
        await self._check_clash(claimed)
        key, record = keys.new_key()
        secret = key_secret(claimed, [record], self.settings)
        made = await _step("key Secret", lambda: self.kube.create(SECRETS, secret))
        await self._apply(claimed)
        status = {"status": {"phase": ACTIVE, "updatedAt": now()}}
        document = await _step("metadata", lambda: self._status(claimed, status))
        self.register.learn_keys(made)
        return self.register.learn(document), key

    async def update(self, current: Publication, change: ConfigChange) -> Publication:
        """The same publication with other settings; its key stays.

        Raises:
            ApiError: 400 or 409 as for publishing; 503 if a step failed: then everything is as it was before.
        """
        wished = _changed(current, change)
        self._check_address(wished)
        if current.id in self._busy:
            raise ApiError(409, "this publication is being changed by somebody else", "try again in a moment")
        self._busy.add(current.id)
        try:
            return await self._change(current, wished)
        except _Step as problem:
            raise _step_failed(problem) from problem
        finally:
            self._busy.discard(current.id)

    async def unpublish(self, publication: Publication) -> None:
        """Take it away: once the claim is deleted nothing opens; what can't be removed now is removed later."""
        if not await self.kube.delete(PUBLICATIONS, *publication.id):
            raise ApiError(404, f"{publication.model} is not published")
        self.register.forget(publication.id)
        await self._remove(replace(publication, phase=REMOVING))

    async def rotate(self, publication: Publication) -> tuple[str, str]:
        """A new key; the old one works on for the grace period. Gives the key and when the old one ends."""
        secret = await self.kube.find(SECRETS, self.settings.namespace, publication.secret_name)
        if secret is None:
            raise ApiError(404, f"{publication.model} is not published")
        key, record = keys.new_key()
        records = keys.rotated(keys.of_secret(secret), record, self.settings.key_grace)
        secret["data"] = keys.secret_data(records)
        try:
            self.register.learn_keys(await self.kube.replace(SECRETS, secret))
        except KubeError as error:
            if error.status == 409:
                raise ApiError(409, "the key is being rotated by somebody else", "try again in a moment") from None
            raise
        ends = max((each.expires or 0.0 for each in records), default=0.0)
        self.register.learn(await self._status(publication, {"status": {"updatedAt": now()}}))
        return key, datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    # --- mending

    async def run(self) -> None:
        while True:
            try:
                await self.recover()
            except (KubeDown, KubeError) as problem:
                log.warning("recovering: %s", problem)
            await asyncio.sleep(RECOVER_SECONDS)

    async def recover(self) -> None:
        """Finish removals, take back what nobody is publishing any more, sweep what hangs on nothing."""
        found = [Publication.of(each) for each in await self.kube.all(PUBLICATIONS)]
        for each in found:
            if each.id in self._busy:
                continue
            if each.phase == REMOVING:
                await self._remove(each)
            elif each.phase == PUBLISHING and self._abandoned(each) and await self._unclaim(each):
                log.warning("taking back the half-published %s of %s", each.model, each.namespace)
                await self._remove(each)
        await self._sweep({each.id for each in found})

    def _abandoned(self, publication: Publication) -> bool:
        """Ours, and nobody here is at it (so we died and started again); or somebody's who has not ended in time."""
        if publication.instance == self.settings.instance:
            return True
        begun = datetime.fromisoformat(publication.created)
        return (datetime.now(UTC) - begun).total_seconds() > ABANDONED_SECONDS

    async def _unclaim(self, publication: Publication) -> bool:
        """Delete its claim, if it is as it was when it was listed: by now it may have become active."""
        return await self.kube.delete(PUBLICATIONS, *publication.id, unchanged_since=publication.version)

    async def _sweep(self, known: set[tuple[str, str]]) -> None:
        """Secrets and backends are in other namespaces than their claim, where no owner reference reaches."""
        labels = ",".join(f"{name}={value}" for name, value in MANAGED.items())
        places = ((SECRETS, self.settings.namespace), (BACKENDS, self.settings.gateway_namespace))
        for resource, namespace in (*places, (AI_BACKENDS, self.settings.gateway_namespace)):
            for each in await self.kube.all(resource, namespace, labels):
                name = each["metadata"]["name"]
                owner, _, model = name.removesuffix(".published").partition(".")
                if not model or (owner, model) in known or (owner, model) in self._busy:
                    continue
                # not known when the claims were listed: it may have been made since, and its claim before it
                if await self.kube.find(PUBLICATIONS, owner, model) is None:
                    version = int(each["metadata"].get("resourceVersion", "0"))
                    if await self.kube.delete(resource, namespace, name, unchanged_since=version):
                        log.warning("removed %s %s, which belonged to no publication", resource.plural, name)

    # --- steps

    async def _change(self, current: Publication, wished: Publication) -> Publication:
        await self._check_clash(wished)
        try:
            await self._write_spec(wished)
            await self._apply(wished)
            status = {"status": {"updatedAt": now()}}
            return self.register.learn(await _step("metadata", lambda: self._status(wished, status)))
        except BaseException:
            await self._restore(current)
            raise

    async def _apply(self, publication: Publication) -> None:
        told = documentation(publication, self.settings)
        for made in objects(publication, told, self.settings):
            await _step(made.step, lambda made=made: self.kube.apply(made.resource, made.document))  # type: ignore[misc]

    async def _status(self, publication: Publication, change: dict[str, object]) -> dict[str, object]:
        return await self.kube.patch(PUBLICATIONS, *publication.id, change, subresource="status")

    async def _write_spec(self, wished: Publication) -> None:
        """Replaced as a whole, so that what is no longer set goes."""
        await _step("settings", lambda: self.kube.replace_spec(PUBLICATIONS, *wished.id, wished.spec))

    async def _restore(self, before: Publication) -> None:
        """As it was. If the API is away, the objects are as they are; the claim is put right with the next update."""
        try:
            await self._write_spec(before)
            await self._apply(before)
        except Exception as problem:
            log.error("could not put %s of %s back: %s", before.model, before.namespace, problem)

    async def _take_back(self, publication: Publication) -> None:
        """Remove a publication that never became active; what can't be removed now, `recover` removes."""
        self.register.forget(publication.id)
        try:
            await asyncio.shield(self._delete_claim(publication))
        except (KubeDown, KubeError) as problem:
            log.error("could not take back %s of %s yet: %s", publication.model, publication.namespace, problem)

    async def _delete_claim(self, publication: Publication) -> None:
        await self.kube.delete(PUBLICATIONS, *publication.id)
        await self._remove(publication)

    async def _remove(self, publication: Publication) -> None:
        for resource, namespace, name in everything(publication, self.settings):
            try:
                await self.kube.delete(resource, namespace, name)
            except KubeDown:
                return  # the claim's finalizer stays: recover goes on
        try:
            document = await self.kube.find(PUBLICATIONS, *publication.id)
            if document and FINALIZER in (document["metadata"].get("finalizers") or []):
                await self.kube.patch(PUBLICATIONS, *publication.id, {"metadata": {"finalizers": None}})
        except KubeError as error:
            if error.status != 404:
                raise
        self.register.forget(publication.id)

    # --- addresses

    def _check_address(self, wished: Publication) -> None:
        settings, host, path = self.settings, wished.host, wished.path
        own = host.removesuffix(f".{settings.public_domain}")
        if host != settings.public_host and (own == host or own == "console" or own.startswith("tenant-")):
            wish = f"a name below {settings.public_domain} that is not the platform's own"
            raise ApiError(400, "invalid configuration", [f"publicHostname: {wish}"])
        if wished.kind == "openai":
            if path != f"/v1/models/{wished.model}":
                wish = f"an openai model is asked at /v1/chat/completions and is described at /v1/models/{wished.model}"
                raise ApiError(400, "invalid configuration", [f"externalPath: {wish}"])
        elif path.split("/")[1].lower() in RESERVED:
            raise ApiError(400, "invalid configuration", [f"externalPath: /{path.split('/')[1]} is the platform's own"])

    async def _check_clash(self, claimed: Publication) -> None:
        others = [Publication.of(each) for each in await _step("claim", lambda: self.kube.all(PUBLICATIONS))]
        if clash(claimed, others) is not None:
            raise ApiError(409, "this address is taken", f"https://{claimed.host}{claimed.path}")


class _Step(Exception):
    """A step of publishing failed."""

    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(f"{step}: {cause}")
        self.step = step
        self.cause = cause


async def _step(name: str, act: Callable[[], Awaitable[T]]) -> T:
    try:
        return await act()
    except (KubeError, KubeDown) as error:
        raise _Step(name, error) from error


def _step_failed(problem: BaseException) -> BaseException:
    """As the client is told: what failed, and that nothing was left behind."""
    if not isinstance(problem, _Step):
        return problem
    told = f"the step '{problem.step}' failed and everything was taken back: {problem.cause}"
    return ApiError(503, "publishing did not succeed", told, {"retry-after": "5"})


def _published_already(publication: Publication) -> ApiError:
    told = "change it with PUT, or remove it first with DELETE"
    return ApiError(409, f"{publication.model} is published already", told)


def _changed(current: Publication, change: ConfigChange) -> Publication:
    if change.model_type not in (None, current.kind):
        raise ApiError(400, "invalid configuration", ["modelType: can't be changed; unpublish first"])
    if change.tenant_id not in (None, current.tenant):
        raise ApiError(400, "invalid configuration", ["tenantId: can't be changed; unpublish first"])
    return replace(
        current,
        path=change.external_path or current.path,
        host=change.public_hostname or current.host,
        limits=change.rate_limiting or current.limits,
        authentication=change.authentication or current.authentication,
        metadata=current.metadata if change.metadata is None else dict(change.metadata),
    )
