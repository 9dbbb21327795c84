"""The shipped policies, rendered for this platform's tenants, models and limits: what every provider applies alike."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from inferencebox.manifests import Document, load
from inferencebox.paths import manifests_dir

GATEWAY = "ai-inference-gateway"
GATEWAY_NAMESPACE = "ai-gateway"
GATEWAY_TARGET = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}
TIER_2_HOSTS = ("istio-ingressgateway.istio-system.svc.cluster.local",)
PER_GATEWAY = {"traffic.yaml"}


def edge_names() -> list[str]:
    """What the TLS entrance's certificate is for (SEC-28): hosts by name that a wildcard does not say, for it stands
    for one label, and OpenSSL takes none below a top level."""
    hosts = ["localhost", "*.inference-in-a-box", "api.router.inference-in-a-box", "console.inference-in-a-box"]
    return hosts + [f"{each['tenant']}.inference-in-a-box" for each in tenants()]


def tenants() -> list[dict[str, str]]:
    """Tenants and their users, SPEC 1.4."""
    return list(_data(manifests_dir() / "tenants" / "tenants.yaml"))


def limits(name: str) -> dict[str, str]:
    """Values of a set of limits: ``strict`` (SPEC 1.5) or ``demo`` (SPEC D18)."""
    return {key: str(value) for key, value in _data(manifests_dir() / "gateway" / "limits" / f"{name}.yaml").items()}


def tenant_namespaces() -> list[Document]:
    """The tenants' namespaces."""
    path = manifests_dir() / "tenants" / "tenant" / "namespace.yaml"
    return [document for tenant in tenants() for document in load(path, tenant)]


def part_namespaces() -> list[Document]:
    """Namespaces of the platform's parts that policies speak of: there on every platform, whatever of it runs."""
    root = manifests_dir()
    files = [root / "gateway" / "namespaces.yaml", root / "management" / "namespace.yaml"]
    return [document for file in [*files, root / "observability" / "namespace.yaml"] for document in load(file)]


def traffic(name: str, targets: Sequence[Mapping[str, str]], values: Mapping[str, str]) -> list[Document]:
    """Limits, retries, breaker and timeouts for some targets (a Gateway, or one listener of it)."""
    path = manifests_dir() / "gateway" / "traffic.yaml"
    return load(path, {"name": name, "targets": json.dumps(list(targets)), **values})


def proxy(provider: str, values: Mapping[str, str]) -> list[Document]:
    """How tier 1's proxy runs with this provider; `values` are those of its `proxy.yaml`."""
    (place,) = load(manifests_dir() / "providers" / provider / "proxy.yaml", values)
    told = {"provider": json.dumps(place["provider"]), "access_log": place["access_log"]}
    documents = load(manifests_dir() / "gateway" / "proxy", told)
    for spec in (document["spec"] for document in documents if document["kind"] == "EnvoyProxy"):
        if "bootstrap" in place:
            spec["bootstrap"] = place["bootstrap"]
        if "tracing" in place:
            spec["telemetry"]["tracing"] = place["tracing"]
    return documents


def mesh_access_log() -> str:
    """What the mesh's proxies write down of each request: Istio's `accessLogFormat`."""
    return json.dumps(_data(manifests_dir() / "mesh" / "proxies" / "access-log.yaml"))


def mesh_statistics() -> dict[str, list[str]]:
    """What the mesh's proxies count: Istio's `proxyStatsMatcher`."""
    return dict(_data(manifests_dir() / "mesh" / "proxies" / "statistics.yaml"))


def telemetry() -> list[Document]:
    """Who may reach telemetry, the tenants' doors to it, what its proxies know and write down of its own traffic."""
    files = ("access.yaml", "viewers.yaml", "sidecar.yaml", "own-traffic.yaml")
    return [document for file in files for document in load(manifests_dir() / "observability" / file)]


def prometheus(provider: str, places: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Prometheus' configuration with this provider.

    Args:
        places: values of its `discovery.yaml`: where targets are found.
        values: those of `observability/prometheus.yaml`.
    """
    root = manifests_dir()
    found = yaml.safe_load(_filled(root / "providers" / provider / "discovery.yaml", places))
    more = found.pop("jobs", [])
    configuration = yaml.safe_load(_filled(root / "observability" / "prometheus.yaml", values))
    for job in configuration["scrape_configs"]:
        if "found" in job:
            job |= found[job.pop("found")]
    configuration["scrape_configs"] += more
    plain = json.loads(json.dumps(configuration))  # what several jobs share is written out in each
    return str(yaml.safe_dump(plain, sort_keys=False))


def alertmanager(slack: str, mail: str) -> str:
    """Alertmanager's configuration: the webhook's address, and host and port of the mail server."""
    return _filled(manifests_dir() / "observability" / "alertmanager.yaml", {"slack": slack, "mail": mail})


def loki(home: str) -> str:
    """Loki's configuration; `home` is the folder in which it keeps what it has."""
    return _filled(manifests_dir() / "observability" / "loki.yaml", {"home": home})


def grafana() -> dict[str, dict[str, str]]:
    """Grafana's provisioning, by kind: where its data come from, where its dashboards are, and these."""
    folder = manifests_dir() / "observability" / "dashboards"
    return {
        **{name: {f"{name}.yaml": (folder / f"{name}.yaml").read_text()} for name in ("datasources", "providers")},
        "dashboards": {file.name: file.read_text() for file in sorted(folder.glob("*.json"))},
    }


def kiali() -> str:
    """Kiali's configuration."""
    return (manifests_dir() / "observability" / "kiali.yaml").read_text()


def log_collector(provider: str, home: str, store: str, places: Mapping[str, str] | None = None) -> str:
    """The log collector's configuration with this provider.

    Args:
        home: the folder in which it notes how far it has read.
        store: URL of Loki.
        places: values of the provider's `logs.yaml`: where which log is.
    """
    found = _log_places(provider, places or {})
    told = {name: place if isinstance(place, str) else json.dumps(place) for name, place in found.items()}
    path = manifests_dir() / "observability" / "log-collector.yaml"
    return _filled(path, {"home": home, "loki": store, **told})


def kubernetes_audit_log() -> str:
    """The file of a control plane's node in which the collector looks for the API server's audit."""
    (path,) = _log_places("kubernetes", {})["kubernetes"]
    return str(path)


def _log_places(provider: str, values: Mapping[str, str]) -> dict[str, Any]:
    return dict(yaml.safe_load(_filled(manifests_dir() / "providers" / provider / "logs.yaml", values)))


def rules() -> dict[str, str]:
    """The shipped files of alert and recording rules, by name."""
    files = sorted((manifests_dir() / "observability" / "rules").glob("*.yaml"))
    return {file.name: file.read_text() for file in files if file.stem != "tests"}


def model(tenant: str, name: str, api: str = "kserve", serverless: bool = False) -> list[Document]:
    """Service, mesh rules and routes of one model.

    Args:
        serverless: whether it is an InferenceService, whose revisions Knative routes to; else replicas of its own.
    """
    root = manifests_dir()
    values = {"tenant": tenant, "model": name}
    mesh = [root / "mesh" / "serverless"] if serverless else [root / "models" / "model", root / "mesh" / "model"]
    folders = [*mesh, root / "gateway" / "model"]
    if api == "openai":
        folders.append(root / "gateway" / "openai-model")
    return [document for folder in folders for document in load(folder, values)]


def models(*when: str) -> list[dict[str, str]]:
    """The models at ``bootstrap`` and those that the ``fixtures`` add, SPEC 1.4; both when neither is named."""
    entries = _data(manifests_dir() / "models" / "models.yaml")
    return [each for moment in when or ("bootstrap", "fixtures") for each in entries[moment]]


def inference_service(
    tenant: str, name: str, values: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> list[Document]:
    """A model as an InferenceService.

    Args:
        values: image, command (JSON), version, min_replicas, max_replicas, scale_target.
        environment: of the model's program, beside its version.
    """
    variables = {"MODEL_VERSION": values["version"], **(environment or {})}
    told = json.dumps([{"name": key, "value": value} for key, value in variables.items()])
    return load(
        manifests_dir() / "models" / "serverless", {"tenant": tenant, "model": name, "environment": told, **values}
    )


def batches(limits_name: str, serverless: bool = False) -> list[list[Document]]:
    """Everything to apply, in an order in which each batch finds what it refers to.

    Args:
        serverless: whether the platform's models are InferenceServices.
    """
    root, values = manifests_dir(), limits(limits_name)
    gateway = [
        document
        for file in sorted((root / "gateway").glob("*.yaml"))
        if file.name not in PER_GATEWAY
        for document in load(file)
    ]
    folders = [root / "tenants" / "tenant", *([root / "tenants" / "serverless"] if serverless else [])]
    per_tenant = [
        document for tenant in tenants() for folder in folders for document in load(folder, {**tenant, **values})
    ]
    per_model = [
        document for each in models() for document in model(each["tenant"], each["model"], each["api"], serverless)
    ]
    management = [document for document in load(root / "management") if document["kind"] != "Namespace"]
    return [
        part_namespaces(),
        [
            *(document for document in gateway if document["kind"] != "Namespace"),
            *traffic("traffic", [GATEWAY_TARGET], values),
        ],
        [*per_tenant, *load(root / "mesh"), *load(root / "models" / "platform.yaml"), *management],
        per_model,
    ]


def _filled(path: Path, values: Mapping[str, str]) -> str:
    return Template(path.read_text()).substitute(values)


def _data(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
