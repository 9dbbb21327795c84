"""Trying a published model as its clients would, and a configuration before it is published."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import ValidationError

from management.api.depends import ADMIN_DEFAULT, ERRORS, Parts, User, publication
from management.documentation import endpoint_url
from management.schemas import ConfigToValidate, PublishConfig, TestCall, TestHistory, TestResult, Validated

router = APIRouter(prefix="/api/publish/test", responses=ERRORS, tags=["trials"])


@router.post("/execute")
async def execute(wish: TestCall, user: User, parts: Parts) -> TestResult:
    """A call through the gateway under the published address, with the key given here."""
    found = publication(parts, user.namespace(wish.namespace, ADMIN_DEFAULT), wish.model_name)
    path = endpoint_url(found, parts.settings).split(found.host, 1)[1]
    headers = {"x-api-key": wish.api_key} if wish.api_key else {}
    if found.authentication.allowed_tenants and not user.is_admin:
        headers["authorization"] = f"Bearer {user.token}"
    if wish.connection_settings.use_custom:
        reply = await parts.outbound.custom(wish.connection_settings, path, headers, wish.input_data)
    else:
        reply = await parts.outbound.through_gateway(found.host, path, headers, wish.input_data)
    when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    entry = {"time": when, "model": found.model, "namespace": found.namespace, "status": reply.status}
    parts.remember_test(user.id, {**entry, "milliseconds": reply.milliseconds, "url": reply.url})
    return TestResult(**vars(reply))


@router.post("/validate")
async def validate(wish: ConfigToValidate, user: User, parts: Parts) -> Validated:
    """Whether a configuration could be published, and what is wrong with it."""
    space = user.namespace(wish.namespace, ADMIN_DEFAULT)
    problems: list[str] = []
    try:
        config = PublishConfig.model_validate(wish.config)
        if config.tenant_id != space:
            problems.append(f"tenantId: the namespace is {space}")
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    model = await parts.models.find(space, wish.model_name)
    if model is None:
        problems.append(f"there is no model {wish.model_name} in {space}")
    elif not model.ready:
        problems.append(f"{wish.model_name} is not ready")
    if (space, wish.model_name) in parts.register.publications:
        problems.append(f"{wish.model_name} is published already")
    return Validated(valid=not problems, problems=problems)


@router.get("/history")
async def history(user: User, parts: Parts) -> TestHistory:
    """The caller's last test calls, newest first, without keys and bodies."""
    mine = list(parts.tested.get(user.id, ()))
    return TestHistory(history=mine, total=len(mine))
