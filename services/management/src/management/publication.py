"""A publication: a model made reachable from outside, and the Kubernetes objects that do it.

The object `PublishedModel` is written first and claims the model; the rest hangs on it. Only when everything is there
does its status say `Active`, and only then does a key open anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from management.keys import KeyRecord, secret_data
from management.kube import (
    AI_BACKENDS,
    AI_ROUTES,
    BACKENDS,
    CONFIG_MAPS,
    HTTP_ROUTES,
    PUBLICATIONS,
    SECRETS,
    TRAFFIC_POLICIES,
    Resource,
)
from management.schemas import Authentication, PublishConfig, RateLimiting, Usage
from management.settings import Settings
from management.tokens import Counters, counters_of

Json = dict[str, Any]
PUBLISHING, ACTIVE, REMOVING = "Publishing", "Active", "Removing"
FINALIZER = "management.inference-in-a-box/objects"
INSTANCE = "management.inference-in-a-box/instance"
ACCESS = "inference-in-a-box/access"
MANAGED = {"app.kubernetes.io/managed-by": "management"}
PUBLISHED_DOOR = "tier-2-published"
OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


@dataclass(frozen=True)
class Made:
    """One object of a publication and the step that makes it."""

    step: str
    resource: Resource
    document: Json


@dataclass(frozen=True)
class Publication:
    """A published model as its `PublishedModel` object tells it."""

    namespace: str
    model: str
    tenant: str
    kind: str
    host: str
    path: str
    limits: RateLimiting
    authentication: Authentication
    metadata: dict[str, str] = field(default_factory=dict)
    phase: str = PUBLISHING
    uid: str = ""
    created: str = ""
    updated: str = ""
    version: int = 0
    instance: str = ""
    usage: Usage = field(default_factory=Usage)
    counters: Counters = field(default_factory=dict)

    @property
    def id(self) -> tuple[str, str]:
        return self.namespace, self.model

    @property
    def name(self) -> str:
        """Of its objects in the model's namespace."""
        return f"published-{self.model}"

    @property
    def secret_name(self) -> str:
        return f"{self.namespace}.{self.model}"

    @property
    def backend_name(self) -> str:
        """Of its objects in the gateway's namespace. A dot can't be in a namespace or model: no two share a name."""
        return f"{self.namespace}.{self.model}.published"

    @property
    def address(self) -> tuple[str, str]:
        """Host and exact path that are this publication's alone."""
        return self.host, f"{self.path}/predict" if self.kind == "traditional" else self.path

    @property
    def spec(self) -> Json:
        return {
            "tenantId": self.tenant,
            "modelType": self.kind,
            "publicHostname": self.host,
            "externalPath": self.path,
            "rateLimiting": self.limits.model_dump(by_alias=True, exclude_none=True),
            "authentication": self.authentication.model_dump(by_alias=True),
            "metadata": self.metadata,
        }

    @classmethod
    def of(cls, document: Json) -> "Publication":
        meta, spec, status = document["metadata"], document["spec"], document.get("status") or {}
        phase = REMOVING if meta.get("deletionTimestamp") else status.get("phase", PUBLISHING)
        return cls(
            namespace=meta["namespace"],
            model=meta["name"],
            tenant=spec["tenantId"],
            kind=spec["modelType"],
            host=spec["publicHostname"],
            path=spec["externalPath"],
            limits=RateLimiting(**spec["rateLimiting"]),
            authentication=Authentication(**spec["authentication"]),
            metadata=spec.get("metadata") or {},
            phase=phase,
            uid=meta.get("uid", ""),
            created=meta.get("creationTimestamp", ""),
            updated=status.get("updatedAt") or meta.get("creationTimestamp", ""),
            version=int(meta.get("resourceVersion", "0")),
            instance=(meta.get("annotations") or {}).get(INSTANCE, ""),
            usage=Usage(**(status.get("usage") or {})),
            counters=counters_of(status),
        )

    @classmethod
    def wished(
        cls, namespace: str, model: str, detected: str, config: PublishConfig, settings: Settings
    ) -> "Publication":
        """What a publish request asks for, with the defaults of SPEC 2.3."""
        kind = config.model_type or detected
        default = f"/v1/models/{model}" if kind == "openai" else f"/published/models/{model}"
        return cls(
            namespace=namespace,
            model=model,
            tenant=config.tenant_id,
            kind=kind,
            host=config.public_hostname or settings.public_host,
            path=config.external_path or default,
            limits=config.rate_limiting,
            authentication=config.authentication,
            metadata=dict(config.metadata),
        )


# --- objects


def anchor(publication: Publication, instance: str) -> Json:
    """The object that claims the model: there can be only one of its name."""
    return {
        "apiVersion": PUBLICATIONS.api,
        "kind": "PublishedModel",
        "metadata": {
            "name": publication.model,
            "namespace": publication.namespace,
            "finalizers": [FINALIZER],
            "annotations": {INSTANCE: instance},
            "labels": MANAGED,
        },
        "spec": publication.spec,
    }


def key_secret(publication: Publication, records: Sequence[KeyRecord], settings: Settings) -> Json:
    """Hashes only, in the service's own namespace, where no tenant reads."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": publication.secret_name, "namespace": settings.namespace, "labels": _labels(publication)},
        "type": "inference-in-a-box/api-keys",
        "data": secret_data(records),
    }


def objects(publication: Publication, documentation: Json, settings: Settings) -> list[Made]:
    """Everything but anchor and keys, in the order in which it is made."""
    routes = _openai(publication, settings) if publication.kind == "openai" else [_route(publication, settings)]
    return [
        *routes,
        Made("rate-limit policy", TRAFFIC_POLICIES, _policy(publication)),
        Made("documentation", CONFIG_MAPS, _documentation(publication, documentation)),
    ]


def everything(publication: Publication, settings: Settings) -> list[tuple[Resource, str, str]]:
    """What may exist of a publication, whatever its kind is or was: in the order in which it is taken away.

    The key goes first, so that nothing opens any more; the route last but for what it uses.
    """
    space, name, gateway = publication.namespace, publication.name, settings.gateway_namespace
    return [
        (SECRETS, settings.namespace, publication.secret_name),
        (HTTP_ROUTES, space, name),
        (AI_ROUTES, space, name),
        (TRAFFIC_POLICIES, space, name),
        (AI_BACKENDS, gateway, publication.backend_name),
        (BACKENDS, gateway, publication.backend_name),
        (CONFIG_MAPS, space, name),
    ]


def _labels(publication: Publication) -> dict[str, str]:
    return {**MANAGED, "tenant": publication.tenant, "model": publication.model}


def _meta(publication: Publication, **labels: str) -> Json:
    return {
        "name": publication.name,
        "namespace": publication.namespace,
        "labels": {**_labels(publication), **labels},
        "ownerReferences": [
            {
                "apiVersion": PUBLICATIONS.api,
                "kind": "PublishedModel",
                "name": publication.model,
                "uid": publication.uid,
                "blockOwnerDeletion": False,
            }
        ],
    }


def _predictor(publication: Publication, settings: Settings) -> str:
    return settings.predictor_host.format(model=publication.model, namespace=publication.namespace)


def _route(publication: Publication, settings: Settings) -> Made:
    """Exactly one path of one host. Neither the key nor a token goes on to the model."""
    rule = {
        "matches": [{"path": {"type": "Exact", "value": publication.address[1]}}],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"remove": ["authorization", "x-api-key", "cookie"]},
            },
            {
                "type": "URLRewrite",
                "urlRewrite": {
                    "hostname": _predictor(publication, settings),
                    "path": {"type": "ReplaceFullPath", "replaceFullPath": f"/v1/models/{publication.model}:predict"},
                },
            },
        ],
        "backendRefs": [
            {
                "group": "gateway.envoyproxy.io",
                "kind": "Backend",
                "name": PUBLISHED_DOOR,
                "namespace": settings.gateway_namespace,
            }
        ],
    }
    document = {
        "apiVersion": HTTP_ROUTES.api,
        "kind": "HTTPRoute",
        "metadata": _meta(publication, **{ACCESS: "published"}),
        "spec": {"parentRefs": [_gateway(settings)], "hostnames": [publication.host], "rules": [rule]},
    }
    return Made("route", HTTP_ROUTES, document)


def _openai(publication: Publication, settings: Settings) -> list[Made]:
    """Backends under the certificate for API keys, and the route that the body's model and the key together choose."""
    name, namespace = publication.backend_name, settings.gateway_namespace
    meta = {"name": name, "namespace": namespace, "labels": _labels(publication)}
    door = "istio-ingressgateway.istio-system.svc.cluster.local"
    backend = {
        "apiVersion": BACKENDS.api,
        "kind": "Backend",
        "metadata": meta,
        "spec": {
            "endpoints": [{"hostname": _predictor(publication, settings), "fqdn": {"hostname": door, "port": 443}}],
            "tls": {
                "sni": door,
                "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "tier2-ca"}],
                "clientCertificateRef": {"kind": "Secret", "name": "tier1-client-published"},
            },
        },
    }
    provider = {
        "apiVersion": AI_BACKENDS.api,
        "kind": "AIServiceBackend",
        "metadata": meta,
        "spec": {
            "schema": {"name": "OpenAI", "prefix": "/openai/v1"},
            "backendRef": {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name},
            "headerMutation": {"remove": ["authorization", "x-api-key", "cookie"]},
        },
    }
    by_key = {"type": "RegularExpression", "name": "x-api-key", "value": ".+"}
    rules: list[Json] = [
        {
            "matches": [
                {
                    "headers": [
                        {"type": "Exact", "name": "x-ai-eg-model", "value": publication.model},
                        {"type": "Exact", "name": "x-published-model", "value": published_as(publication)},
                        by_key,
                        {"type": "RegularExpression", "name": "x-forwarded-proto", "value": "https?"},
                    ]
                }
            ],
            "modelsOwnedBy": publication.tenant,
            "timeouts": {"request": "60s"},
            "backendRefs": [{"name": name, "namespace": namespace}],
        }
    ]
    if publication.host != settings.public_host:
        # a host that the platform's own entrance does not list needs a place where the body is read
        landing = [{"type": "RegularExpression", "name": "x-forwarded-proto", "value": "https?"}, by_key]
        rules.append(
            {"matches": [{"headers": landing}], "backendRefs": [{"name": "openai-nobody", "namespace": namespace}]}
        )
    route = {
        "apiVersion": AI_ROUTES.api,
        "kind": "AIGatewayRoute",
        "metadata": _meta(publication, **{ACCESS: "published"}),
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", **_gateway(settings)}],
            "hostnames": [publication.host],
            "rules": rules,
            "llmRequestCosts": [
                {"metadataKey": "llm_input_token", "type": "InputToken"},
                {"metadataKey": "llm_output_token", "type": "OutputToken"},
                {"metadataKey": "llm_total_token", "type": "TotalToken"},
            ],
        },
    }
    return [
        Made("backend", BACKENDS, backend),
        Made("backend", AI_BACKENDS, provider),
        Made("route", AI_ROUTES, route),
    ]


def published_as(publication: Publication) -> str:
    """How the gateway knows, once the key was checked, which publication it opens."""
    return f"{publication.namespace}.{publication.model}"


def _policy(publication: Publication) -> Json:
    """The publication's own limits, added to the platform's (`StrategicMerge`), never `shared`: manifests/README."""
    limits = publication.limits
    rules: list[Json] = [
        {"limit": {"requests": limits.requests_per_minute, "unit": "Minute"}},
        {"limit": {"requests": limits.requests_per_hour, "unit": "Hour"}},
    ]
    if limits.burst_limit:
        rules.append({"limit": {"requests": limits.burst_limit, "unit": "Second"}})
    if limits.tokens_per_hour and publication.kind == "openai":
        counted = {"namespace": "io.envoy.ai_gateway", "key": "llm_total_token"}
        rules.append(
            {
                "limit": {"requests": limits.tokens_per_hour, "unit": "Hour"},
                "cost": {
                    "request": {"from": "Number", "number": 0},
                    "response": {"from": "Metadata", "metadata": counted},
                },
            }
        )
    return {
        "apiVersion": TRAFFIC_POLICIES.api,
        "kind": "BackendTrafficPolicy",
        "metadata": _meta(publication),
        "spec": {
            "mergeType": "StrategicMerge",
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": publication.name}],
            "rateLimit": {"global": {"rules": rules}},
        },
    }


def _documentation(publication: Publication, documentation: Json) -> Json:
    examples = documentation["sdkExamples"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(publication),
        "data": {
            "endpointUrl": documentation["endpointUrl"],
            **{f"example-{name}": text for name, text in examples.items()},
        },
    }


def _gateway(settings: Settings) -> Json:
    return {"name": settings.gateway_name, "namespace": settings.gateway_namespace}
