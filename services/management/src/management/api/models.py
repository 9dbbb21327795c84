"""Models: list, make, change, remove, ask."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from management.api.depends import ERRORS, Note, Parts, Place, User, Wished
from management.errors import ApiError
from management.identity import tenants
from management.schemas import (
    FRAMEWORKS,
    Frameworks,
    Message,
    Model,
    ModelChange,
    ModelLogs,
    ModelMade,
    ModelName,
    Models,
    ModelWish,
    Prediction,
)

router = APIRouter(prefix="/api", responses=ERRORS, tags=["models"])
Name = Annotated[ModelName, Path()]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


@router.get("/frameworks")
async def frameworks() -> Frameworks:
    """What models can be made of; public."""
    return Frameworks(frameworks=list(FRAMEWORKS))


@router.get("/models")
async def list_models(
    user: User, parts: Parts, namespace: Wished = None, limit: Limit = 100, offset: Offset = 0
) -> Models:
    """A tenant sees its own; an administrator all, or one namespace's."""
    if user.is_admin and namespace is None:
        spaces = [each["metadata"]["name"] for each in await tenants(parts.kube)]
    else:
        spaces = [user.namespace(namespace, "")]
    found = await parts.models.all(spaces)
    return Models(models=found[offset : offset + limit], total=len(found))


@router.post("/models", status_code=201)
async def create_model(wish: ModelWish, user: User, parts: Parts, note: Note) -> ModelMade:
    space = user.namespace(wish.namespace, "tenant-a")
    if space not in {each["metadata"]["name"] for each in await tenants(parts.kube)}:
        raise ApiError(400, "invalid configuration", [f"namespace: {space} is no tenant's"])
    await parts.models.create(space, wish)
    note("create-model", namespace=space, model=wish.name)
    config = wish.model_dump(by_alias=True, exclude_none=True)
    return ModelMade(message="model created", name=wish.name, namespace=space, config=config)


@router.get("/models/{name}")
async def get_model(name: Name, space: Place, parts: Parts) -> Model:
    return await parts.models.get(space, name)


@router.put("/models/{name}")
async def change_model(name: Name, change: ModelChange, space: Place, parts: Parts, note: Note) -> ModelMade:
    """Only what is given changes."""
    await parts.models.change(space, name, change)
    note("change-model", namespace=space, model=name)
    config = change.model_dump(by_alias=True, exclude_none=True)
    return ModelMade(message="model changed", name=name, namespace=space, config=config)


@router.delete("/models/{name}")
async def delete_model(name: Name, space: Place, parts: Parts, note: Note) -> Message:
    """A published model is unpublished first."""
    if (space, name) in parts.register.publications:
        raise ApiError(409, f"{name} is published", "unpublish it first")
    await parts.models.delete(space, name)
    note("delete-model", namespace=space, model=name)
    return Message(message=f"{name} deleted")


@router.get("/models/{name}/logs")
async def model_logs(
    name: Name, space: Place, parts: Parts, lines: Annotated[int, Query(ge=1, le=5000)] = 100
) -> ModelLogs:
    """The end of each pod's log; empty where the model runs in no pod."""
    return ModelLogs(logs=await parts.models.logs(space, name, lines))


@router.post("/models/{name}/predict", response_model=None, responses={200: {"description": "The model's own reply"}})
async def predict(name: Name, wish: Prediction, space: Place, user: User, parts: Parts) -> JSONResponse:
    """Asks the model through the gateway with the caller's own token, or where `connectionSettings` says."""
    model = await parts.models.get(space, name)
    openai = model.api == "openai"
    path = "/v1/chat/completions" if openai else f"/v1/models/{name}:predict"
    mine = {} if user.is_admin else {"authorization": f"Bearer {user.token}"}
    body: Any = wish.input_data
    settings = wish.connection_settings
    if settings.use_custom:
        reply = await parts.outbound.custom(settings, path, mine, body)
    else:
        reply = await parts.outbound.through_gateway(parts.settings.public_host, path, mine, body)
    if reply.status >= 500:
        raise ApiError(502, "the model gave no answer", {"status": reply.status, "body": reply.body})
    if reply.status >= 400:
        told = {"status": reply.status, "body": reply.body}
        raise ApiError(
            reply.status if reply.status in (400, 403, 404, 429) else 400, "the gateway or model refused", told
        )
    return JSONResponse(
        reply.body, headers={"x-upstream-status": str(reply.status), "x-milliseconds": str(reply.milliseconds)}
    )
