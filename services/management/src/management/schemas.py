"""What goes in and out of the API (SPEC 2.3), checked by pydantic and shown in the OpenAPI document."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

LABEL = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
FRAMEWORKS = ("sklearn", "tensorflow", "pytorch", "onnx", "xgboost")
HOST_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$"
PATH_PATTERN = r"^/[A-Za-z0-9._~/-]*$"
RESERVED = ("v1", "v2", "api", "openai", "tokens", "internal", "health", "metrics", ".well-known")
"""First parts of paths that the platform itself has."""
MOST = 1_000_000_000

ModelName = Annotated[str, StringConstraints(pattern=LABEL, max_length=63)]
Namespace = Annotated[str, StringConstraints(pattern=LABEL, max_length=63)]
ModelType = Literal["traditional", "openai"]
Positive = Annotated[int, Field(gt=0, le=MOST)]


class Schema(BaseModel):
    """camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Wish(Schema):
    """What clients send. Unknown fields are refused, so that a misspelt one is not silently without effect."""

    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    error: str
    details: Any = None


class Health(BaseModel):
    status: Literal["healthy", "degraded"]
    timestamp: str


# --- people


class Login(BaseModel):
    username: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class User(Schema):
    tenant: str
    name: str
    is_admin: bool
    exp: int


class LoggedIn(BaseModel):
    token: str
    user: User


class Session(BaseModel):
    """A tenant's token, to be kept in a cookie that scripts can't read."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class Tenant(Schema):
    tenant: str
    name: str
    is_admin: bool


# --- models


class ModelWish(Wish):
    name: ModelName
    framework: Literal["sklearn", "tensorflow", "pytorch", "onnx", "xgboost"]
    storage_uri: Annotated[str, StringConstraints(pattern=r"^(gs|s3|https|pvc|hdfs|oci)://[^\s]+$", max_length=2000)]
    min_replicas: Annotated[int, Field(ge=0, le=100)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=100)] = 3
    scale_target: Annotated[int, Field(ge=1, le=10000)] = 60
    scale_metric: Literal["concurrency", "rps", "cpu", "memory"] = "concurrency"
    namespace: Namespace | None = None

    @model_validator(mode="after")
    def _replicas(self) -> "ModelWish":
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas is more than maxReplicas")
        return self


class ModelChange(Wish):
    framework: Literal["sklearn", "tensorflow", "pytorch", "onnx", "xgboost"] | None = None
    storage_uri: (
        Annotated[str, StringConstraints(pattern=r"^(gs|s3|https|pvc|hdfs|oci)://[^\s]+$", max_length=2000)] | None
    ) = None
    min_replicas: Annotated[int, Field(ge=0, le=100)] | None = None
    max_replicas: Annotated[int, Field(ge=1, le=100)] | None = None
    scale_target: Annotated[int, Field(ge=1, le=10000)] | None = None
    scale_metric: Literal["concurrency", "rps", "cpu", "memory"] | None = None


class Model(Schema):
    """M of SPEC 2.3. `kind` says what tells of it: a KServe InferenceService, or a Service declared for it."""

    name: str
    namespace: str
    status: str
    ready: bool
    url: str
    predictor: dict[str, Any]
    created_at: str
    status_details: dict[str, Any]
    kind: Literal["InferenceService", "Service"]
    api: ModelType


class Models(BaseModel):
    models: list[Model]
    total: int


class ModelMade(BaseModel):
    message: str
    name: str
    namespace: str
    config: dict[str, Any]


class Message(BaseModel):
    message: str


class Frameworks(BaseModel):
    frameworks: list[str]


class ModelLogs(BaseModel):
    logs: dict[str, str]


# --- publishing


def _host(host: str) -> str:
    """As SPEC 2.3 has it: a dotted name, neither address nor port nor path; kept in small letters."""
    if "." not in host or ".." in host or "--" in host or not re.fullmatch(HOST_PATTERN, host):
        raise ValueError("a dotted host name without scheme, port, path, '..' or '--'")
    if any(len(part) > 63 or part.startswith("-") or part.endswith("-") for part in host.split(".")):
        raise ValueError("a host name whose parts are of 1 to 63 letters, digits and inner dashes")
    return host.lower()


def _path(path: str) -> str:
    parts = path.strip("/").split("/")
    if not path.startswith("/") or "//" in path or any(part in (".", "..", "") for part in parts):
        raise ValueError("a path that begins with / and has no empty, '.' or '..' part")
    return "/" + "/".join(parts)


Host = Annotated[str, StringConstraints(max_length=253, pattern=HOST_PATTERN), AfterValidator(_host)]
ExternalPath = Annotated[str, StringConstraints(max_length=200, pattern=PATH_PATTERN), AfterValidator(_path)]


class RateLimiting(Wish):
    requests_per_minute: Positive = 60
    requests_per_hour: Positive = 1000
    tokens_per_hour: Positive | None = None
    burst_limit: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "RateLimiting":
        if self.requests_per_minute > self.requests_per_hour:
            raise ValueError("requestsPerMinute is more than requestsPerHour")
        return self


class Authentication(Wish):
    """Published models are always behind a key; `allowedTenants` asks for a token of one of them besides."""

    require_api_key: Literal[True] = True
    allowed_tenants: Annotated[list[Namespace], Field(max_length=50)] = []


class PublishConfig(Wish):
    tenant_id: Namespace
    model_type: ModelType | None = None
    external_path: ExternalPath | None = None
    public_hostname: Host | None = None
    rate_limiting: RateLimiting = RateLimiting()
    authentication: Authentication = Authentication()
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=500)]], Field(max_length=20)] = {}


class Publish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    config: PublishConfig


class ConfigChange(Wish):
    tenant_id: Namespace | None = None
    model_type: ModelType | None = None
    external_path: ExternalPath | None = None
    public_hostname: Host | None = None
    rate_limiting: RateLimiting | None = None
    authentication: Authentication | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=500)]], Field(max_length=20)] | None = None


class Republish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    config: ConfigChange


class Usage(Schema):
    total_requests: int = 0
    requests_today: int = 0
    tokens_used: int | None = None
    last_access_time: str | None = None


class Documentation(Schema):
    endpoint_url: str
    auth_headers: dict[str, str]
    example_requests: list[dict[str, Any]]
    sdk_examples: dict[Literal["curl", "python", "javascript", "go"], str]


class PublishedModel(Schema):
    """P of SPEC 2.3. `apiKey` is whole only in the reply that made the key; afterwards its beginning is shown."""

    model_name: str
    namespace: str
    tenant_id: str
    model_type: ModelType
    external_url: str
    external_path: str
    public_hostname: str
    api_key: str
    rate_limiting: RateLimiting
    authentication: Authentication
    metadata: dict[str, str]
    status: Literal["active", "publishing", "removing"]
    created_at: str
    updated_at: str
    usage: Usage
    documentation: Documentation


class Published(Schema):
    message: str
    published_model: PublishedModel


class PublishedModels(Schema):
    published_models: list[PublishedModel]
    total: int


class Rotated(Schema):
    message: str
    new_api_key: str
    updated_at: str
    previous_key_expires_at: str


class KeyToValidate(Schema):
    api_key: Annotated[str, StringConstraints(max_length=500)] | None = None


class ValidKey(BaseModel):
    valid: Literal[True]
    tenant: str
    model: str


# --- test calls


class Resolve(BaseModel):
    host: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    address: Annotated[str, StringConstraints(min_length=2, max_length=45)]


class ConnectionSettings(Schema):
    use_custom: bool = False
    protocol: Literal["http", "https"] = "http"
    host: Annotated[str, StringConstraints(max_length=253)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    path: Annotated[str, StringConstraints(max_length=2000)] | None = None
    headers: Annotated[dict[str, str], Field(max_length=30)] = {}
    dns_resolve: Annotated[list[Resolve], Field(max_length=10)] = []


class Prediction(Schema):
    input_data: Any
    connection_settings: ConnectionSettings = ConnectionSettings()


class TestCall(Schema):
    """A call to a published model, as its clients would make it."""

    __test__ = False
    model_name: ModelName
    namespace: Namespace | None = None
    api_key: Annotated[str, StringConstraints(max_length=500, pattern=r"^[!-~]*$")] | None = None
    input_data: Any
    connection_settings: ConnectionSettings = ConnectionSettings()


class TestResult(Schema):
    __test__ = False
    status: int
    headers: dict[str, str]
    body: Any
    milliseconds: float
    url: str


class TestHistory(BaseModel):
    __test__ = False
    history: list[dict[str, Any]]
    total: int


class ConfigToValidate(Schema):
    model_name: ModelName
    namespace: Namespace | None = None
    config: dict[str, Any]


class Validated(BaseModel):
    valid: bool
    problems: list[str]


# --- administration


class System(BaseModel):
    nodes: list[dict[str, Any]]
    namespaces: list[dict[str, Any]]
    deployments: list[dict[str, Any]]


class TenantEntry(BaseModel):
    name: str
    status: str
    created: str


class Tenants(BaseModel):
    tenants: list[TenantEntry]


class Command(BaseModel):
    command: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class CommandResult(BaseModel):
    result: str
    command: str


class Resources(BaseModel):
    resources: dict[str, list[dict[str, Any]]]


class Logs(BaseModel):
    logs: list[dict[str, Any]]


class GatewayService(BaseModel):
    name: str
    namespace: str
    listeners: list[dict[str, Any]]
    conditions: list[dict[str, Any]]
    addresses: list[dict[str, Any]]
