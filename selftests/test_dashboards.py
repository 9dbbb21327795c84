"""Grafana's and Kiali's layers: what their pods read is there, and nobody sees all tenants' data without a login."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import reply, serving

from fixtures.telemetry import kiali_of
from inferencebox.identity import Token
from inferencebox.layers.catalogue import layers
from inferencebox.layers.documents import Kitchen, Small
from inferencebox.manifests import Document
from inferencebox.paths import manifests_dir
from inferencebox.platform import Endpoint
from inferencebox.probes.kubernetes import KubeReply
from inferencebox.providers.kubernetes.images import references
from inferencebox.providers.kubernetes.makers import Makers
from inferencebox.providers.options import DASHBOARDS, PlatformOptions
from inferencebox.release import DEFAULT_RELEASE, Release


class Cluster:
    """One with these Secrets."""

    def __init__(self, *secrets: Document) -> None:
        self.secrets = {each["metadata"]["name"]: each for each in secrets}

    def get(self, kind: str, name: str, namespace: str) -> KubeReply:
        assert (kind, namespace) == ("secret", "monitoring")
        found = self.secrets.get(name)
        return KubeReply(200, object=found) if found else KubeReply(404, "NotFound")


def made(layer: str, cluster: Cluster | None = None) -> list[Document]:
    """All objects of a layer, as they are applied."""
    image = dict(references(Release.load(DEFAULT_RELEASE))).__getitem__
    kitchen = Kitchen(
        files=Path,
        helm=Path("helm"),
        image=image,
        values={"grafana_configuration": "1", "kiali_configuration": "2"},
        makers=Makers(cluster or Cluster(), PlatformOptions(), telemetry=True, image=image).all(),  # type: ignore[arg-type]
        kubernetes="v1.33.4",
        small=Small.load(),
    )
    return [document for part in kitchen.parts(layers()[layer]) for document in part]


def one(documents: list[Document], kind: str, name: str) -> Any:
    (found,) = [each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture(params=DASHBOARDS)
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_a_pod_reads_is_among_the_objects(layer: str) -> None:
    documents = made(layer)
    named = {(each["kind"], each["metadata"]["name"]) for each in documents}
    pod = one(documents, "Deployment", layer)["spec"]["template"]["spec"]
    assert ("ServiceAccount", pod["serviceAccountName"]) in named
    for volume in pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", [volume]):
            if "configMap" in source:
                assert ("ConfigMap", source["configMap"]["name"]) in named
            if not source.get("secret", {}).get("optional", True):
                assert ("Secret", source["secret"]["name"]) in named
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_its_pod_may_do_as_little_as_possible(layer: str) -> None:
    pod = one(made(layer), "Deployment", layer)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == wanted
    assert container["image"] == references(Release.load(DEFAULT_RELEASE))[layer]
    assert container["resources"]["requests"] == Small.load().requests


def test_the_way_in_leads_through_both_tiers_to_its_port_without_the_callers_token(layer: str) -> None:
    documents = made(layer)
    host = f"{layer}.monitoring.svc.cluster.local"
    route = one(documents, "HTTPRoute", layer)
    assert route["metadata"]["labels"]["inference-in-a-box/access"] == "any-tenant"
    assert route["spec"]["hostnames"] == [f"{layer}.inference-in-a-box"]
    (rule,) = route["spec"]["rules"]
    assert rule["filters"][0]["urlRewrite"]["hostname"] == host
    (let_in,) = one(documents, "AuthorizationPolicy", f"to-{layer}")["spec"]["rules"]
    assert let_in["to"] == [{"operation": {"hosts": [host]}}]
    assert let_in["from"][0]["source"]["requestPrincipals"] == ["inference-in-a-box/*"]
    (way,) = one(documents, "VirtualService", layer)["spec"]["http"]
    assert way["headers"] == {"request": {"remove": ["authorization"]}}
    (port,) = one(documents, "Service", layer)["spec"]["ports"]
    assert way["route"] == [{"destination": {"host": host, "port": {"number": port["port"]}}}]
    (caller,) = one(documents, "AuthorizationPolicy", layer)["spec"]["rules"]
    assert caller["from"] == [{"source": {"principals": ["cluster.local/ns/istio-system/sa/istio-ingressgateway"]}}]
    assert caller["to"] == [{"operation": {"ports": [str(port["targetPort"])]}}]


def test_grafana_finds_its_dashboards_where_they_are_mounted_and_lets_in_its_administrator_only() -> None:
    documents = made("grafana")
    (container,) = one(documents, "Deployment", "grafana")["spec"]["template"]["spec"]["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    told = yaml.safe_load(one(documents, "ConfigMap", "grafana-providers")["data"]["providers.yaml"])
    assert [each["options"]["path"] for each in told["providers"]] == [places["dashboards"]]
    boards = one(documents, "ConfigMap", "grafana-dashboards")["data"]
    assert len({json.loads(text)["uid"] for text in boards.values()}) == 4
    settings = {each["name"]: each for each in container["env"]}
    assert settings["GF_AUTH_ANONYMOUS_ENABLED"]["value"] == "false"
    password = settings["GF_SECURITY_ADMIN_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert one(documents, "Secret", password["name"])["stringData"][password["key"]] == "prom-operator"


def test_every_datasource_of_a_panel_is_provisioned() -> None:
    folder = manifests_dir() / "observability" / "dashboards"
    known = {each["uid"] for each in yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]}
    for file in folder.glob("*.json"):
        assert {panel["datasource"]["uid"] for panel in json.loads(file.read_text())["panels"]} <= known


def test_kiali_wants_a_token_and_reads_no_secrets_and_changes_nothing() -> None:
    documents = made("kiali")
    told = yaml.safe_load(one(documents, "ConfigMap", "kiali")["data"]["kiali.yaml"])
    assert told["auth"] == {"strategy": "token"}
    assert told["deployment"]["view_only_mode"] is True
    rules = one(documents, "ClusterRole", "kiali")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    core = {resource for rule in rules if "" in rule["apiGroups"] for resource in rule["resources"]}
    assert not core & {"*", "secrets", "pods/log", "pods/exec", "pods/portforward"}
    assert one(documents, "Role", "kiali")["metadata"]["namespace"] == "istio-system"


def test_what_kiali_asks_is_where_the_platform_has_it() -> None:
    told = yaml.safe_load((manifests_dir() / "observability" / "kiali.yaml").read_text())
    sources = yaml.safe_load((manifests_dir() / "observability/dashboards/datasources.yaml").read_text())["datasources"]
    known = {each["type"]: each["url"] for each in sources}
    services = told["external_services"]
    assert services["prometheus"]["url"] == known["prometheus"]
    assert services["tracing"]["internal_url"] == known["jaeger"]
    port = one(made("grafana"), "Service", "grafana")["spec"]["ports"][0]["port"]
    assert services["grafana"]["internal_url"] == f"http://grafana.monitoring.svc.cluster.local:{port}"
    probe = one(made("kiali"), "Deployment", "kiali")["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    asked = (probe["httpGet"]["port"], probe["httpGet"]["path"])
    assert asked == (told["server"]["port"], f"{told['server']['web_root']}/healthz")


def test_kialis_key_is_long_enough_for_it_and_stays_when_the_layer_is_made_anew() -> None:
    first = one(made("kiali"), "Secret", "kiali")
    again = one(made("kiali", Cluster(first)), "Secret", "kiali")
    assert first["data"] == again["data"]
    assert one(made("kiali"), "Secret", "kiali")["data"] != first["data"]
    assert len(base64.b64decode(first["data"]["signing-key"])) == 32


@dataclass
class Entrance:
    """A platform with this one."""

    at: Endpoint

    def endpoint(self, name: str) -> Endpoint:
        assert name == "kiali"
        return self.at


class Accounts:
    def token(self, namespace: str, account: str) -> Token:
        return Token("a.b+c", f"{namespace}/{account}")


def test_who_signed_in_to_kiali_goes_on_with_its_session() -> None:
    def kiali(request: bytes) -> bytes:
        if request.startswith(b"POST /kiali/api/authenticate "):
            assert request.endswith(b"token=a.b%2Bc")
            cookies = b"set-cookie: kiali-token-K=s3; Path=/kiali; HttpOnly\r\nset-cookie: old=; Max-Age=0\r\n"
            return b"HTTP/1.1 200 OK\r\n" + cookies + b"content-length: 2\r\n\r\n{}"
        return reply(200 if b"cookie: kiali-token-K=s3\r\n" in request else 401)

    with serving(kiali) as server:
        seen = kiali_of(Entrance(server.endpoint), Accounts()).get("/api/istio/config", validate="true")()  # type: ignore[arg-type]
        assert seen.status == 200
        assert b"GET /kiali/api/istio/config?validate=true " in server.requests[-1]
