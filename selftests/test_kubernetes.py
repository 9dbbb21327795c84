"""The Kubernetes probe sends plain REST, tells kubectl's equivalent, and makes observations of refusals."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from loopback import Server, closed_port, reply, serving

from inferencebox import evidence
from inferencebox.checks import answered, refused
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Transport
from inferencebox.probes.kubernetes import Kube, KubeRefused, KubeReply, parse, service_account


def resource(plural: str, kind: str, scope: str = "Namespaced", short: tuple[str, ...] = ()) -> dict[str, object]:
    names = {"resource": plural, "singularResource": kind.lower(), "shortNames": list(short), "scope": scope}
    return {**names, "responseKind": {"kind": kind}}


CORE = [
    resource("pods", "Pod", short=("po",)),
    resource("secrets", "Secret"),
    resource("namespaces", "Namespace", "Cluster"),
]
ROUTES = [resource("httproutes", "HTTPRoute")]


def discovery(group: str, version: str, resources: object) -> dict[str, object]:
    return {"items": [{"metadata": {"name": group}, "versions": [{"version": version, "resources": resources}]}]}


class Api:
    """Answers like an API server: discovery for real, anything else as prepared."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: object = {}
        self.sent: list[tuple[str, str, dict[str, str], object]] = []

    def __call__(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        if path in ("/api", "/apis"):
            group = (
                discovery("", "v1", CORE) if path == "/api" else discovery("gateway.networking.k8s.io", "v1", ROUTES)
            )
            return reply(200, json.dumps(group).encode())
        headers = dict(line.lower().split(": ", 1) for line in lines)
        self.sent.append((method, path, headers, json.loads(body) if body else None))
        return reply(self.status, json.dumps(self.answer).encode(), content_type="application/json")

    def refuse(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.answer = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[Server]:
    with serving(api) as running:
        yield running


def connected(endpoint: Endpoint, folder: Path) -> Kube:
    file = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": endpoint.url}}],
        "users": [{"name": "u", "user": {"token": "admin-token"}}],
    }
    file.write_text(yaml.safe_dump(document))
    return Kube(file)


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    return connected(server.endpoint, tmp_path)


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "tenant-a"}}


@pytest.mark.parametrize(
    ("ask", "method", "path"),
    [
        (lambda k: k.get("pod", "p", "tenant-a"), "GET", "/api/v1/namespaces/tenant-a/pods/p"),
        (lambda k: k.get("po", "p", "tenant-a"), "GET", "/api/v1/namespaces/tenant-a/pods/p"),
        (lambda k: k.get("namespace", "tenant-a"), "GET", "/api/v1/namespaces/tenant-a"),
        (lambda k: k.get("pods", "p"), "GET", "/api/v1/namespaces/default/pods/p"),
        (
            lambda k: k.get("httproutes.gateway.networking.k8s.io", "r", "ns"),
            "GET",
            "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes/r",
        ),
        (lambda k: k.list("Pod", labels="app=x"), "GET", "/api/v1/pods?labelSelector=app%3Dx"),
        (lambda k: k.list("Pod", "ns"), "GET", "/api/v1/namespaces/ns/pods"),
        (lambda k: k.delete("Pod", "p", "ns"), "DELETE", "/api/v1/namespaces/ns/pods/p?propagationPolicy=Background"),
        (
            lambda k: k.apply(POD),
            "PATCH",
            "/api/v1/namespaces/tenant-a/pods/p?fieldManager=inferencebox&force=true",
        ),
        (
            lambda k: k.create(POD, dry_run=True),
            "POST",
            "/api/v1/namespaces/tenant-a/pods?fieldManager=inferencebox&dryRun=All",
        ),
        (lambda k: k.patch("Pod", "p", "ns", {"a": 1}), "PATCH", "/api/v1/namespaces/ns/pods/p"),
        (lambda k: k.delete_all(POD), "DELETE", "/api/v1/namespaces/tenant-a/pods/p"),
    ],
)
def test_each_wish_is_one_request(kube: Kube, api: Api, ask: Callable[[Kube], object], method: str, path: str) -> None:
    ask(kube)
    assert [(sent[0], sent[1]) for sent in api.sent] == [(method, path)]
    assert api.sent[0][2]["authorization"] == "bearer admin-token"


def test_kinds_are_asked_once_and_again_when_one_is_missing(kube: Kube, server: Server) -> None:
    for _ in range(3):
        kube.get("pod", "p", "ns")
    assert len(server.requests) == 2 + 3
    assert kube.get("unheard", "x").cause == "absent"
    assert len(server.requests) == 2 + 3 + 2


def test_apply_takes_text_files_and_documents_in_order(kube: Kube, api: Api, tmp_path: Path) -> None:
    text = yaml.safe_dump_all([{**POD, "metadata": {"name": "one"}}, None, {**POD, "metadata": {"name": "two"}}])
    (tmp_path / "all.yaml").write_text(text)
    assert parse(tmp_path / "all.yaml") == parse(text)
    kube.apply(text, namespace="mine")
    assert [sent[1].split("?")[0].rpartition("mine/")[2] for sent in api.sent] == ["pods/one", "pods/two"]
    assert api.sent[0][2]["content-type"] == "application/apply-patch+yaml"


def test_somebody_else_can_be_impersonated(kube: Kube, api: Api) -> None:
    kube.create_as(service_account("tenant-a", "runner"), POD)
    kube.acting_as("ann", "devs").get("pod", "p", "ns")
    kube.get("pod", "p", "ns")
    assert [sent[2].get("impersonate-user") for sent in api.sent] == [
        "system:serviceaccount:tenant-a:runner",
        "ann",
        None,
    ]
    assert api.sent[1][2]["impersonate-group"] == "devs"


def test_rights_are_asked_of_the_authorizer(kube: Kube, api: Api) -> None:
    api.answer = {"status": {"allowed": False}}
    assert not kube.acting_as("ann").can_i("get", "pods/log", "tenant-b")
    wish = api.sent[0][3]["spec"]["resourceAttributes"]  # type: ignore[index]
    assert (wish["resource"], wish["subresource"], wish["namespace"], wish["verb"]) == (
        "pods",
        "log",
        "tenant-b",
        "get",
    )


REFUSALS = [
    (403, "Forbidden", 'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=20', "quota"),
    (403, "Forbidden", 'pods is forbidden: User "ann" cannot list resource "pods" in API group ""', "rbac"),
    (403, "Forbidden", 'pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 4', "limits"),
    (400, "BadRequest", 'admission webhook "v.istio.io" denied the request: no', "admission"),
    (422, "Invalid", "ValidatingAdmissionPolicy 'strict' with binding 'b' denied request: no", "admission"),
    (422, "Invalid", 'Pod "p" is invalid: spec.containers: Required value', "schema"),
    (400, "BadRequest", 'strict decoding error: unknown field "spec.x"', "schema"),
    (500, "", "failed to create typed patch object (ns/t; x.io/v1, Kind=T): .spec.n: expected numeric", "schema"),
    (404, "NotFound", 'pods "p" not found', "absent"),
    (409, "AlreadyExists", 'pods "p" already exists', "exists"),
    (409, "Conflict", "the object has been modified", "conflict"),
]


@pytest.mark.parametrize(("status", "reason", "message", "cause"), REFUSALS)
def test_refusals_name_their_cause(kube: Kube, api: Api, status: int, reason: str, message: str, cause: str) -> None:
    api.refuse(status, reason, message)
    seen = kube.create(POD)
    assert refused(status, by=cause)(seen) is None
    assert answered(201)(seen) == f"wanted 201, got {status} by {cause} saying {message[:160]!r}"


def test_setup_fails_on_a_refusal(kube: Kube, api: Api) -> None:
    api.refuse(403, "Forbidden", "no")
    with pytest.raises(KubeRefused, match=r"kubectl get pod p -n ns: 403"):
        kube.get("pod", "p", "ns").require()


def test_conditions_are_waited_for_on_all_parents(kube: Kube, api: Api) -> None:
    accepted = {"conditions": [{"type": "Accepted", "status": "True"}]}
    api.answer = {"status": {"parents": [accepted, accepted]}}
    assert kube.wait_condition("HTTPRoute", "r", "ns", "Accepted", within=1).ok
    api.answer = {"status": {"parents": [accepted, {"conditions": []}]}}
    with pytest.raises(AssertionError, match="wanted Accepted=True"):
        kube.wait_condition("HTTPRoute", "r", "ns", "Accepted", within=0)
    api.answer = {"status": accepted}
    assert kube.wait_condition("Pod", "p", "ns", "Accepted", within=0).ok


def test_evidence_gets_the_kubectl_command(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(evidence, "exchange", lambda request, response, command: told.append(command))
    kube.acting_as("ann").get("pod", "p", "ns")
    kube.apply(POD)
    assert told == [
        "kubectl get pod p -n ns --as=ann",
        "kubectl apply --server-side --force-conflicts --field-manager=inferencebox -f - -n tenant-a",
    ]


def test_tokens_of_service_accounts_are_hidden(kube: Kube, api: Api) -> None:
    api.answer = {"status": {"token": "abcdef"}}
    value = kube.token("tenant-a", "runner", audiences=["x"])
    assert value == "abcdef"
    assert "abcdef" not in repr(value)
    assert api.sent[0][3]["spec"] == {"expirationSeconds": 3600, "audiences": ["x"]}  # type: ignore[index]


def test_no_api_server_is_an_observation_and_no_kubeconfig_a_problem(
    tmp_path: Path, kube: Kube, server: Server
) -> None:
    kube.get("pod", "p", "ns")
    server.close()
    assert kube.get("pod", "p", "ns").error in (Transport.REFUSED, Transport.RESET)
    assert str(KubeReply(None, error=Transport.REFUSED, message="m")) == "no reply: refused (m)"
    with pytest.raises(SetupProblem, match="does not tell its kinds"):
        connected(closed_port(), tmp_path).get("pod", "p")
    with pytest.raises(SetupProblem, match="cannot use the kubeconfig"):
        Kube(tmp_path / "none")
