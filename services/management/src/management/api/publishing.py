"""Publishing models, and what is published."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from management.api.depends import ERRORS, Note, Parts, Place, User, Wished, publication
from management.documentation import documentation, external_url
from management.errors import ApiError
from management.identity import Caller
from management.publication import Publication
from management.schemas import (
    Documentation,
    Message,
    ModelName,
    Publish,
    Published,
    PublishedModel,
    PublishedModels,
    Republish,
    Rotated,
)
from management.services import Services

router = APIRouter(prefix="/api", responses=ERRORS, tags=["publishing"])
Name = Annotated[ModelName, Path()]
STATUS = {"Active": "active", "Publishing": "publishing", "Removing": "removing"}


@router.post("/models/{name}/publish")
async def publish(name: Name, wish: Publish, space: Place, user: User, parts: Parts, note: Note) -> Published:
    """Makes a model reachable from outside with an API key. The key is whole in this reply and never again."""
    _own_tenant(user, space, wish.config.tenant_id)
    model = await parts.models.get(space, name)
    if not model.ready:
        raise ApiError(400, f"{name} is not ready", model.status_details)
    if wish.config.model_type not in (None, model.api):
        raise ApiError(400, "invalid configuration", [f"modelType: {name} is of type {model.api}"])
    wished = Publication.wished(space, name, model.api, wish.config, parts.settings)
    try:
        made, key = await parts.publisher.publish(wished)
    except ApiError as error:
        note("publish", "refused" if error.status < 500 else "failed", namespace=space, model=name, status=error.status)
        raise
    note("publish", namespace=space, model=name, host=made.host, path=made.path)
    return Published(message=f"{name} is published", published_model=shown(parts, made, key))


@router.put("/models/{name}/publish")
async def republish(name: Name, wish: Republish, space: Place, user: User, parts: Parts, note: Note) -> PublishedModel:
    """Other limits, host or path; the key stays. What is not given stays as it is."""
    current = publication(parts, space, name)
    if wish.config.tenant_id is not None:
        _own_tenant(user, space, wish.config.tenant_id)
    changed = await parts.publisher.update(current, wish.config)
    note("republish", namespace=space, model=name, host=changed.host, path=changed.path)
    return shown(parts, changed)


@router.get("/models/{name}/publish")
async def get_published(name: Name, space: Place, parts: Parts) -> PublishedModel:
    return shown(parts, publication(parts, space, name))


@router.delete("/models/{name}/publish")
async def unpublish(name: Name, space: Place, parts: Parts, note: Note) -> Message:
    await parts.publisher.unpublish(publication(parts, space, name))
    note("unpublish", namespace=space, model=name)
    return Message(message=f"{name} is no longer published")


@router.post("/models/{name}/publish/rotate-key")
async def rotate(name: Name, space: Place, parts: Parts, note: Note) -> Rotated:
    """A new key at once; the old one works on for a minute."""
    found = publication(parts, space, name)
    key, ends = await parts.publisher.rotate(found)
    updated = parts.register.publications[found.id].updated
    note("rotate-key", namespace=space, model=name)
    return Rotated(message="the key was rotated", new_api_key=key, updated_at=updated, previous_key_expires_at=ends)


@router.get("/published-models")
async def published_models(
    user: User,
    parts: Parts,
    namespace: Wished = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> PublishedModels:
    """A tenant sees its own; an administrator all, or one namespace's."""
    only = namespace if user.is_admin else user.namespace(namespace, "")
    found = sorted(
        (each for each in parts.register.publications.values() if only in (None, each.namespace)),
        key=lambda each: each.id,
    )
    page = [shown(parts, each) for each in found[offset : offset + limit]]
    return PublishedModels(published_models=page, total=len(found))


def _own_tenant(user: Caller, space: str, tenant: str) -> None:
    if tenant == space:
        return
    if user.is_admin:
        raise ApiError(400, "invalid configuration", [f"tenantId: the namespace is {space}"])
    raise ApiError(403, "another tenant", f"you are {user.tenant}")


def shown(parts: Services, found: Publication, key: str = "") -> PublishedModel:
    records = parts.register.records(found.id)
    return PublishedModel(
        model_name=found.model,
        namespace=found.namespace,
        tenant_id=found.tenant,
        model_type=found.kind,  # type: ignore[arg-type]  # one of the two: the CRD's schema says so
        external_url=external_url(found, parts.settings),
        external_path=found.path,
        public_hostname=found.host,
        api_key=key or (records[0].hint if records else ""),
        rate_limiting=found.limits,
        authentication=found.authentication,
        metadata=found.metadata,
        status=STATUS[found.phase],  # type: ignore[arg-type]
        created_at=found.created,
        updated_at=found.updated,
        usage=parts.register.usage(found),
        documentation=Documentation(**documentation(found, parts.settings)),
    )
