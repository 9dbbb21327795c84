"""What administrators see of the platform. Nothing here changes anything."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from management.api.depends import ERRORS, Admin, Note, Parts
from management.errors import ApiError
from management.identity import tenants as tenant_namespaces
from management.kube import (
    AI_ROUTES,
    DEPLOYMENTS,
    GATEWAYS,
    HTTP_ROUTES,
    INFERENCE_SERVICES,
    NAMESPACES,
    NODES,
    PUBLICATIONS,
    SERVICES,
)
from management.schemas import Command, CommandResult, GatewayService, Logs, Resources, System, TenantEntry, Tenants

router = APIRouter(prefix="/api/admin", responses=ERRORS, tags=["administration"])
KINDS = {
    "inferenceServices": INFERENCE_SERVICES,
    "publishedModels": PUBLICATIONS,
    "httpRoutes": HTTP_ROUTES,
    "aiGatewayRoutes": AI_ROUTES,
    "services": SERVICES,
}


@router.get("/system")
async def system(admin: Admin, parts: Parts) -> System:
    nodes = await parts.kube.all(NODES)
    spaces = await parts.kube.all(NAMESPACES)
    deployments = await parts.kube.all(DEPLOYMENTS)
    return System(
        nodes=[
            {
                "name": each["metadata"]["name"],
                "ready": _condition(each, "Ready"),
                "version": each["status"].get("nodeInfo", {}).get("kubeletVersion", ""),
                "capacity": each["status"].get("capacity", {}),
            }
            for each in nodes
        ],
        namespaces=[{"name": each["metadata"]["name"], "status": each["status"]["phase"]} for each in spaces],
        deployments=[
            {
                "name": each["metadata"]["name"],
                "namespace": each["metadata"]["namespace"],
                "wanted": each["spec"].get("replicas", 0),
                "ready": each["status"].get("readyReplicas", 0),
            }
            for each in deployments
        ],
    )


@router.get("/tenants")
async def tenants(admin: Admin, parts: Parts) -> Tenants:
    return Tenants(
        tenants=[
            TenantEntry(
                name=each["metadata"]["name"],
                status=each["status"]["phase"],
                created=each["metadata"]["creationTimestamp"],
            )
            for each in await tenant_namespaces(parts.kube)
        ]
    )


@router.get("/resources")
async def resources(admin: Admin, parts: Parts) -> Resources:
    """What there is in the tenants' namespaces, by kind."""
    spaces = [each["metadata"]["name"] for each in await tenant_namespaces(parts.kube)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in KINDS}
    for name, kind in KINDS.items():
        for space in spaces:
            for each in await parts.kube.all_if_known(kind, space):
                meta = each["metadata"]
                facts = {"name": meta["name"], "namespace": meta["namespace"], "created": meta["creationTimestamp"]}
                found[name].append(facts)
    return Resources(resources=found)


@router.get("/logs")
async def logs(admin: Admin, parts: Parts, lines: Annotated[int, Query(ge=1, le=500)] = 100) -> Logs:
    """The end of this service's audit log, newest first."""
    return Logs(logs=list(parts.audit.recent)[::-1][:lines])


@router.get("/ai-gateway-service")
async def ai_gateway_service(admin: Admin, parts: Parts) -> GatewayService:
    """Where tier 1 is and how it fares."""
    settings = parts.settings
    found = await parts.kube.find(GATEWAYS, settings.gateway_namespace, settings.gateway_name)
    if found is None:
        raise ApiError(404, "there is no gateway", f"{settings.gateway_namespace}/{settings.gateway_name}")
    status = found.get("status", {})
    return GatewayService(
        name=settings.gateway_name,
        namespace=settings.gateway_namespace,
        listeners=[
            {"name": each["name"], "port": each["port"], "protocol": each["protocol"]}
            for each in found["spec"]["listeners"]
        ],
        conditions=[{"type": each["type"], "status": each["status"]} for each in status.get("conditions", [])],
        addresses=list(status.get("addresses", [])),
    )


@router.post("/kubectl")
async def kubectl(wish: Command, admin: Admin, parts: Parts, note: Note) -> CommandResult:
    """get, describe, logs, top in kubectl's words; read-only, without Secrets and without a shell."""
    try:
        result = await parts.console.run(wish.command)
    except ApiError as error:
        note("kubectl", "refused", status=error.status)
        raise
    note("kubectl", command=wish.command[:200])
    return CommandResult(result=result, command=wish.command)


def _condition(document: dict[str, Any], kind: str) -> bool:
    conditions = document["status"].get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
