"""How the service is set up: every value by flag or environment, with what holds in a cluster as default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class Settings:
    """What the service needs to know.

    Args:
        kube_url: the Kubernetes API.
        kube_token: file with the service account's token; read again when it changes.
        kube_ca: file of the API's certificate authority.
        namespace: where the service keeps its Secrets (hashed keys, administrator, signing key).
        instance: name of this replica: it takes back at start what it left half done.
        issuer, jwks_url: whose tokens tenants bring, and where the keys are.
        gateway_url: tier 1 as seen from here, for test calls.
        gateway_namespace, gateway_name: the Gateway that published routes attach to.
        public_host: host of published models that name none; its routes are the platform's own as well.
        public_domain: published hosts end in it.
        public_scheme: of external addresses.
        predictor_host: the host by which tier 2 finds a model.
        test_networks: networks that test calls may reach besides public addresses and the gateway.
        calls_per_minute, calls_per_second: of one user.
        key_grace: seconds that a rotated key works on.
        prometheus_url: the Prometheus that watches the gateway: it says how many tokens were used. Empty: nobody does.
        body_limit: bytes of a request.
        demo_credentials: whether to begin with admin/password when there is no administrator yet.
    """

    kube_url: str = "https://kubernetes.default.svc"
    kube_token: Path = Path(f"{_ACCOUNT}/token")
    kube_ca: Path = Path(f"{_ACCOUNT}/ca.crt")
    namespace: str = "management"
    instance: str = "management"
    issuer: str = "inference-in-a-box"
    jwks_url: str = "http://jwt-server.default.svc.cluster.local:8080/.well-known/jwks.json"
    gateway_url: str = "http://ai-gateway.ai-gateway.svc.cluster.local"
    gateway_namespace: str = "ai-gateway"
    gateway_name: str = "ai-inference-gateway"
    public_host: str = "api.router.inference-in-a-box"
    public_domain: str = "inference-in-a-box"
    public_scheme: str = "https"
    predictor_host: str = "{model}-predictor.{namespace}.127.0.0.1.sslip.io"
    test_networks: tuple[IPv4Network | IPv6Network, ...] = field(default=())
    calls_per_minute: int = 100
    calls_per_second: int = 10
    key_grace: float = 60.0
    prometheus_url: str = ""
    body_limit: int = 1024 * 1024
    demo_credentials: bool = False

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Settings":
        """From variables `MANAGEMENT_<NAME>`; a name that is unknown or a value that does not fit is an error."""
        given: dict[str, object] = {}
        for name, text in env.items():
            if not name.startswith("MANAGEMENT_"):
                continue
            key = name.removeprefix("MANAGEMENT_").lower()
            if key not in cls.__dataclass_fields__:
                raise ValueError(f"{name} is no setting")
            given[key] = _value(name, getattr(cls, key, None), key, text)
        return cls(**given)  # type: ignore[arg-type]


def _value(name: str, default: object, key: str, text: str) -> object:
    try:
        if key == "test_networks":
            return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
        if isinstance(default, bool):
            return text.lower() in ("1", "true", "yes")
        if isinstance(default, int | float | Path):
            return type(default)(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a {type(default).__name__}") from None
    return text
