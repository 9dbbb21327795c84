"""Who may do what: at every route, at the Kubernetes API, and what is written down where everybody can read it."""

import base64
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures.commands import Ended, run
from fixtures.gateway import Gateway
from fixtures.management import Management, Publishing
from fixtures.scenario import scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox import command_line, policies
from inferencebox.checks import answered, attribute, equals, one_of, refused
from inferencebox.cli import main as ibox
from inferencebox.errors import SetupProblem
from inferencebox.examples import example
from inferencebox.identity import Forger
from inferencebox.paths import project_root
from inferencebox.platform import Platform
from inferencebox.probes.http import Call
from inferencebox.probes.kubernetes import Kube, KubeReply, service_account
from inferencebox.redaction import scan
from inferencebox.report.controls import controls_report
from inferencebox.report.reading import load
from inferencebox.waiting import confirm, consistently, eventually

# --- SEC-20 ---------------------------------------------------------------------------------------------------------

ACCESS = "inference-in-a-box/access"
PUBLIC = ("public", "console")
PUBLIC_ROUTES = {"HTTPRoute default/default-backend", "HTTPRoute default/not-published", "HTTPRoute default/console"}
"""All that may say so. The console's page is public; its API asks for tokens itself (MGT-02)."""
STATED_WITHIN = timedelta(minutes=1)
NO_CREDENTIALS = refused(401, by=("jwt", "api-key"), at="tier-1")
SET_BY_GATEWAY = {"x-tenant", "x-jwt-tenant", "x-jwt-sub", "x-published-model"}
"""No client can send these: tier 1 removes them before it looks for a route."""


def name_of(document: Mapping[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['namespace']}/{document['metadata']['name']}"


def listed(kube: Kube, kind: str) -> list[dict[str, Any]]:
    return [{**item, "kind": kind} for item in kube.list(kind).require()["items"]]


def attached(route: Mapping[str, Any]) -> bool:
    """Whether the platform's Gateway has taken the route in.

    If nothing is said of one that has been there for a minute, it has too: istiod writes the same list of parents, and
    may erase what Envoy Gateway wrote (seen on 2026-11-30), which serves the route all the same.
    """
    parents = route.get("status", {}).get("parents") or []
    said = [
        each["status"]
        for parent in parents
        if parent["parentRef"]["name"] == policies.GATEWAY
        for each in parent["conditions"]
        if each["type"] == "Accepted"
    ]
    if said:
        return "True" in said
    wanted = any(parent["name"] == policies.GATEWAY for parent in route["spec"].get("parentRefs") or [])
    made = datetime.fromisoformat(route["metadata"]["creationTimestamp"])
    return wanted and datetime.now(UTC) - made > STATED_WITHIN


def is_public(route: Mapping[str, Any]) -> bool:
    return (route["metadata"].get("labels") or {}).get(ACCESS) in PUBLIC


def spelled(match: Mapping[str, str]) -> str:
    return example(match["value"]) if match.get("type") == "RegularExpression" else match["value"]


def knocks(gateway: Gateway, route: Mapping[str, Any]) -> Iterator[tuple[Call, bool]]:
    """A request for each host and match of a route, and whether a client can meet the match at all."""
    for host in route["spec"].get("hostnames") or ["localhost"]:
        for rule in route["spec"].get("rules") or []:
            for match in rule.get("matches") or [{}]:
                path = spelled(match.get("path") or {"value": "/"})
                if (match.get("path") or {}).get("type", "PathPrefix") == "PathPrefix":
                    path = path.rstrip("/") + "/v1/chat/completions"
                headers = [(each["name"], spelled(each)) for each in match.get("headers") or []]
                call = gateway.at(host.replace("*", "any")).call(match.get("method", "GET"), path, headers=headers)
                open_to_all = not any(name.lower() in SET_BY_GATEWAY for name, _ in headers)
                yield call.called(f"{path} at {host} ({name_of(route)})"), open_to_all


def gone(kube: Kube, document: Mapping[str, Any]) -> bool:
    metadata = document["metadata"]
    now = kube.get(document["kind"], metadata["name"], metadata["namespace"])
    return not now.ok or "deletionTimestamp" in now.object["metadata"]


def selects(policy: Mapping[str, Any], route: Mapping[str, Any]) -> bool:
    """Whether a policy is for a route: as the Gateway's own, which is for all, by the route's name or by its labels."""
    spec, metadata = policy["spec"], route["metadata"]
    named = {(target["kind"], target["name"]) for target in spec.get("targetRefs") or []}
    if ("Gateway", policies.GATEWAY) in named:
        return True
    if policy["metadata"]["namespace"] != metadata["namespace"]:
        return False
    selectors = [each for each in spec.get("targetSelectors") or [] if each["kind"] == "HTTPRoute"]
    labels = metadata.get("labels") or {}
    return ("HTTPRoute", metadata["name"]) in named or any(fits(labels, each) for each in selectors)


def fits(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    """As Kubernetes selects by labels."""
    found = []
    for wanted in selector.get("matchExpressions") or []:
        value, values = labels.get(wanted["key"]), wanted.get("values") or []
        verdicts = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        found.append(verdicts[wanted["operator"]])
    return all(found) and (selector.get("matchLabels") or {}).items() <= labels.items()


def not_accepted(kube: Kube) -> Callable[[], list[str]]:
    """Security policies that the gateway refused, and those for a route it has taken in of which it says nothing."""

    def ask() -> list[str]:
        routes = [route for route in listed(kube, "HTTPRoute") if attached(route)]
        found = []
        for policy in listed(kube, "SecurityPolicy"):
            ancestors = policy.get("status", {}).get("ancestors") or []
            said = [each for ancestor in ancestors for each in ancestor["conditions"] if each["type"] == "Accepted"]
            if not said and any(selects(policy, route) for route in routes):
                found.append(f"{name_of(policy)}: the gateway says nothing of it")
            refusals = [each for each in said if each["status"] != "True"]
            found += [f"{name_of(policy)}: {each.get('message', '')[:120]}" for each in refusals]
        return found

    return ask


@scenario("SEC-20", needs=("gateway.jwt", "ai-gateway", "kubernetes"), sabotage="jwt.removed", seconds=2)
def test_every_route_asks_for_credentials(gateway: Gateway, kube: Kube, story: Story) -> None:
    """Every route that Kubernetes knows asks for credentials, except the three that are meant to be public."""
    routes = [route for route in listed(kube, "HTTPRoute") if attached(route)]
    owners = {owner["name"] for route in routes for owner in route["metadata"].get("ownerReferences") or []}
    closed = [route for route in routes if not is_public(route)]
    with story.given("the API server lists the routes, those that the AI gateway made of its own among them"):
        ai_routes = [route for route in listed(kube, "AIGatewayRoute") if not gone(kube, route)]
        missing = [
            name_of(route) for route in ai_routes if route["metadata"]["name"] not in owners and not gone(kube, route)
        ]
        assert len(closed) >= len(policies.models()), f"only {len(closed)} routes are attached"
        assert not missing, f"no HTTPRoute was made of {missing[0]}"
        story.note("attached routes", "\n".join(f"{name_of(each)}{' (public)' * is_public(each)}" for each in routes))
    with story.then("of these say that they are public just those that are meant to be"):
        confirm({name_of(route) for route in routes if is_public(route)}, equals(PUBLIC_ROUTES))
    with story.given("the gateway has accepted the policies that guard them"):
        eventually(not_accepted(kube), equals([]), within=10)
    with story.when("somebody without credentials knocks at every path of every host of every route"):
        for route in closed:
            seen = [(call(), open_to_all) for call, open_to_all in knocks(gateway, route)]
            for reply, open_to_all in seen:
                allowed = NO_CREDENTIALS if open_to_all else NO_CREDENTIALS | refused(404, by="route", at="tier-1")
                why = allowed(reply)
                assert why is None or gone(kube, route), f"{reply.asked}: {why}"
            refusals = [reply for reply, _ in seen if NO_CREDENTIALS(reply) is None]
            assert refusals or gone(kube, route), f"{name_of(route)} could not be knocked at"
    with story.then("while the public page is there for everybody"):
        eventually(gateway.get("/"), answered(200))


# --- SEC-35 ---------------------------------------------------------------------------------------------------------

GUARDS = (
    ("security.istio.io/v1", "PeerAuthentication"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "Sidecar"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy"),
    ("gateway.envoyproxy.io/v1alpha1", "Backend"),
    ("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute"),
    ("aigateway.envoyproxy.io/v1beta1", "BackendSecurityPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("v1", "ServiceAccount"),
    ("v1", "Secret"),
)
"""What makes the isolation: no tenant may make, change or delete any of it, in its own namespace either."""
CLUSTER = (
    ("v1", "Namespace"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("gateway.networking.k8s.io/v1", "GatewayClass"),
)
READABLE = ("pods", "services", "events", "configmaps", "resourcequotas", "limitranges", "deployments.apps")
NOTHING = "sec-35-there-is-no-such-thing"
"""The API server asks who may before it looks what is there: attempts at it are real and change nothing."""
DENIED = refused(403, by="rbac")


def attempts(kube: Kube, api_version: str, kind: str, namespace: str | None, all_ways: bool) -> Iterator[KubeReply]:
    """Makes one (as a dry run); changes and deletes one, too, if all ways are wanted; of a name that nothing has."""
    metadata = {"name": NOTHING, **({"namespace": namespace} if namespace else {})}
    group = api_version.rpartition("/")[0]
    resource = f"{kind}.{group}" if group else kind
    yield kube.create({"apiVersion": api_version, "kind": kind, "metadata": metadata}, dry_run=True)
    if not all_ways:
        return
    yield kube.patch(resource, NOTHING, namespace, {"metadata": {"labels": {"sec-35": "changed"}}})
    yield kube.delete(resource, NOTHING, namespace)


def all_denied(who: str, replies: list[KubeReply], what: str = "") -> None:
    for reply in replies:
        why = DENIED(reply)
        words = reply.asked.removeprefix("kubectl ").partition(" --as=")[0]
        assert why is None, f"{who} may {words}{' of a ' * bool(what)}{what}: {why}"


@scenario(
    "SEC-35",
    needs=("kubernetes.rbac",),
    sabotage=("rbac.tenant-reads-secrets", "rbac.tenant-edits-policies", "kube-apiserver.anonymous"),
    seconds=4,
)
def test_a_tenant_governs_nothing_but_its_models(
    platform: Platform, kube: Kube, tenants: tuple[Tenant, ...], story: Story
) -> None:
    """A tenant's account sees its own namespace; Secrets, policies, the cluster and other tenants are closed to it."""
    anybody = Call("GET", platform.endpoint("kubernetes"), "/api/v1/namespaces/tenant-a/pods", insecure=True)
    for tenant, other in zip(tenants, (*tenants[1:], tenants[0]), strict=True):
        account = f"the account of {tenant}"
        people = {
            account: kube.acting_as(service_account(tenant.name, tenant.name)),
            tenant.user: kube.acting_as(tenant.user),
        }
        for who, acting in people.items():
            with story.given(f"{who} looks at what runs in {tenant}"):
                for resource in READABLE:
                    reply = acting.list(resource, tenant.name)
                    assert answered(200)(reply) is None, f"{who} may not {reply.asked}: {reply}"
            with story.when(f"{who} looks into {other} and elsewhere: denied"):
                places = (other.name, "istio-system", "ai-gateway", "default", "kube-system", None)
                all_denied(who, [acting.list(resource, place) for resource in READABLE[:4] for place in places])
            with story.when(f"{who} reads Secrets, in {tenant} too: denied"):
                seen = [acting.list("secrets", place) for place in (tenant.name, other.name, "ai-gateway", None)]
                all_denied(who, [*seen, acting.get("secret", "tier1-client", "ai-gateway")])
            with story.when(
                f"{who} makes, changes or deletes what keeps tenants apart: denied in {tenant}, in {other}, for all"
            ):
                in_all_ways = who == account
                for api_version, kind in GUARDS:
                    all_denied(who, list(attempts(acting, api_version, kind, tenant.name, in_all_ways)), kind)
                    all_denied(who, list(attempts(acting, api_version, kind, other.name, False)), kind)
                for api_version, kind in CLUSTER:
                    all_denied(who, list(attempts(acting, api_version, kind, None, in_all_ways)), kind)
            with story.when(f"{who} relabels its own namespace, or wants to be somebody else: denied"):
                label = {"metadata": {"labels": {"tenant": other.name}}}
                all_denied(who, [acting.patch("namespace", tenant.name, None, label)])
                for verb, resource in (
                    ("impersonate", "users"),
                    ("create", "serviceaccounts/token"),
                    ("create", "pods/exec"),
                ):
                    assert not acting.can_i(verb, resource, tenant.name), f"{who} may {verb} {resource} in {tenant}"
        with story.when(f"the account under which {tenant}'s models run does anything at all: denied"):
            model = kube.acting_as(service_account(tenant.name, "model"))
            seen = [model.list(resource, tenant.name) for resource in (*READABLE[:4], "secrets")]
            all_denied(f"{tenant}'s model", [*seen, *attempts(model, "v1", "ConfigMap", tenant.name, True)])
    with story.then("a token of the account, used by itself, can do just the same; without one nobody can do anything"):
        token = kube.token(tenants[0].name, tenants[0].name, seconds=600)
        eventually(anybody.with_(token=token), attribute("status", equals(200)))
        for path in ("/api/v1/namespaces/tenant-a/secrets", "/api/v1/namespaces/tenant-b/pods", "/api/v1/secrets"):
            consistently(anybody.with_(token=token, path=path), attribute("status", equals(403)), seconds=0)
        consistently(anybody, attribute("status", one_of(401, 403)), seconds=0)


# --- SEC-36 ---------------------------------------------------------------------------------------------------------

CONFTEST = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
pytest_plugins = [f"fixtures.{{m.stem}}" for m in sorted(Path({root!r}, "fixtures").glob("[!_]*.py"))]
"""
SMALL_RUN = """
from fixtures.scenario import not_exercised, scenario
from inferencebox.errors import SetupProblem

def promise(name):
    return scenario(name, why_no_sabotage="a made-up result")

@promise("SEC-23")
def test_holds(): "It holds."
@promise("SEC-26")
def test_holds_too(): "It holds."
@promise("SEC-28")
def test_holds_as_well(): "It holds."
@promise("SEC-07")
def test_default_deny(): "It holds."
@promise("SEC-06")
def test_broken():
    "It does not hold."
    assert False, "a forged token was taken"
@promise("SEC-33")
def test_no_log_store():
    "It could not be shown."
    not_exercised("no log store")
@promise("TRF-25")
def test_no_room():
    "It could not be judged."
    raise SetupProblem("no room", "make room")
"""
WANTED = {
    ("SOC 2", "CC6.7"): "supported",
    ("HIPAA", "164.312(c)(1)"): "violated",
    ("SOC 2", "CC6.6"): "violated",
    ("GDPR", "Art. 25"): "partly supported",
    ("HIPAA", "164.312(b)"): "no evidence",
    ("GDPR", "Art. 32(1)(c)"): "no evidence",
}


def suite(folder: Path, *arguments: str) -> Ended:
    """A run of the suite itself, in a process of its own, without any platform."""
    return run(*command_line.pytest("-q", "-p", "no:cacheprovider", *arguments), timeout=300, cwd=folder)


@scenario(
    "SEC-36",
    why_no_sabotage="it is about the suite's own report, not the platform: it records a run with failures of its own",
    seconds=6,
)
def test_controls_stand_on_recorded_results_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], story: Story
) -> None:
    """GDPR, HIPAA and SOC 2 controls are as good as the results of their scenarios; without a run nothing is said."""
    (tmp_path / "conftest.py").write_text(CONFTEST.format(root=str(project_root())))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")
    (tmp_path / "test_small.py").write_text(SMALL_RUN)
    reports = tmp_path / "reports"
    with story.given("the suite has recorded a small run: promises kept, one broken, one not shown, one not judged"):
        ran = suite(tmp_path, "--reports", str(reports), "test_small.py")
        verdicts = {name: result.verdict for name, result in load(reports).results.items()}
        kinds = {"SEC-23": "passed", "SEC-06": "failed", "SEC-33": "not exercised", "TRF-25": "error"}
        assert verdicts.items() >= kinds.items(), f"recorded were {verdicts}: {ran.stdout[-400:]}"
    with story.when("its results are mapped to the controls"):
        found = {(each.control.framework, each.control.control): each for each in controls_report(load(reports))}
        assert {framework for framework, _ in found} == {"GDPR", "HIPAA", "SOC 2"}
        story.note("controls", "\n".join(f"{f} {c}: {each.standing} {each.verdicts}" for (f, c), each in found.items()))
    with story.then("kept promises support a control, a broken one violates it, and what was not shown is no evidence"):
        for name, standing in WANTED.items():
            assert found[name].standing == standing, f"{' '.join(name)} is {found[name].standing}, not {standing}"
        assert found["SOC 2", "CC6.7"].verdicts == dict.fromkeys(("SEC-23", "SEC-26", "SEC-28"), "passed")
        for each in found.values():
            for promise, verdict in each.verdicts.items():
                assert verdict == verdicts.get(promise, "not tested"), f"{promise} was {verdicts.get(promise)}"
    with story.then("the page that people read says the same"):
        page = (reports / "index.html").read_text()
        for framework, control in WANTED:
            assert f"{framework} {control}" in page, f"{framework} {control} is not on the first page"
    with story.when("there is no run: the report fails and says what to do"):
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(SetupProblem, match="no run"):
            controls_report(None)
        monkeypatch.setattr(sys, "argv", ["ibox", "report", str(empty), "--no-allure"])
        with pytest.raises(SystemExit) as ended:
            ibox()
        said = capsys.readouterr().err
        assert ended.value.code == 2, f"`ibox report` without a run ended with {ended.value.code}"
        assert "Fix: run the suite first" in said, f"it does not say what to do: {said}"


# --- SEC-37 ---------------------------------------------------------------------------------------------------------

WORKLOAD_KINDS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
PUBLISHED = {"tls.crt", "ca.crt", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"}
"""Parts of Secrets that are shown to everybody who connects."""
SIGNATURE = "jws-kubeconfig-"
"""kubeadm's signature, without a payload, of what everybody may read (kube-public/cluster-info): no token."""
SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|(api|access|private|signing)[-_]?key)$", re.IGNORECASE
)
"""How a variable, or a part of a Secret, is called whose value is secret however short it is."""
SHORTEST = 8
"""Characters: shorter values (`true`, `admin`) are anybody's."""


def secret_words(kube: Kube, platform: Platform) -> set[str]:
    """Lines of everything secret that the platform has: values of Secrets and the key that signs tokens (no prose)."""
    values = [
        base64.b64decode(value).decode("latin-1")
        for secret in listed(kube, "Secret")
        for name, value in (secret.get("data") or {}).items()
        if name not in PUBLISHED
    ]
    values += [file.read_text() for file in platform.signing_keys.glob("*.pem")]
    lines = {line.strip() for value in values if value.isprintable() or "\n" in value for line in value.splitlines()}
    return {line for line in lines if len(line) >= 20 and " " not in line}


def passwords(kube: Kube) -> set[str]:
    """Whole values of Secrets, short ones too, of the parts that are called a password, a key or the like."""
    values = [
        base64.b64decode(value).decode("latin-1").strip()
        for secret in listed(kube, "Secret")
        for name, value in (secret.get("data") or {}).items()
        if SECRET_NAME.search(name)
    ]
    return {value for value in values if len(value) >= SHORTEST}


def containers(workload: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    spec = workload["spec"]
    while "containers" not in spec:
        inner = spec.get("jobTemplate") or spec.get("template")
        if inner is None:
            return
        spec = inner["spec"]
    yield from (*spec["containers"], *(spec.get("initContainers") or []))


def all_containers(kube: Kube) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of every workload: where it is, and what it is."""
    for kind in WORKLOAD_KINDS:
        for workload in listed(kube, kind):
            for container in containers(workload):
                yield f"{name_of(workload)}, container {container['name']}", container


def readable(kube: Kube) -> Iterator[tuple[str, str]]:
    """What everybody who may look at workloads can read: where, and the text."""
    for config in listed(kube, "ConfigMap"):
        for name, value in (config.get("data") or {}).items():
            if not name.startswith(SIGNATURE):
                yield f"{name_of(config)}, {name}", value
    for where, container in all_containers(kube):
        for variable in container.get("env") or []:
            yield f"{where}, variable {variable['name']}", f"{variable['name']}={variable.get('value', '')}"
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        yield f"{where}, arguments", "\n".join(words)


def spelled_out(kube: Kube, secret: set[str]) -> list[str]:
    """Variables of workloads whose value is a Secret's, or which are called a password, a key or the like and have
    their value beside them: no file's path, and no reference."""
    return [
        f"a password is in {where}, variable {variable['name']}"
        for where, container in all_containers(kube)
        for variable in container.get("env") or []
        if (value := variable.get("value", "").strip())
        and (value in secret or (SECRET_NAME.search(variable["name"]) and value[0] not in "/$"))
    ]


def referred(kube: Kube) -> set[str]:
    """Names of variables that workloads take from a Secret by reference: only their own processes have the value."""
    return {
        variable["name"]
        for _, container in all_containers(kube)
        for variable in container.get("env") or []
        if "secretKeyRef" in (variable.get("valueFrom") or {})
    }


def found_in(texts: Iterator[tuple[str, str]], words: set[str], folder: Path) -> list[str]:
    """Where one of the words stands, or what looks like a token, a private key or a credential."""
    found = []
    for number, (where, text) in enumerate(texts):
        if any(word in text for word in words):
            found.append(f"a secret of the platform is in {where}")
        file = folder / str(number)
        file.write_text(text)
        found += [f"{leak.kind} is in {where}" for leak in scan(file)]
        file.unlink()
    return found


def logged(folder: Path, words: set[str], scratch: Path) -> list[str]:
    """The same for log files. After a night's run they are hundreds of megabytes: grep looks for all words at once."""
    wanted = scratch / "words"
    wanted.touch(mode=0o600)
    wanted.write_text("\n".join(words))
    search = ["grep", "--recursive", "--fixed-strings", "--files-with-matches", f"--file={wanted}", str(folder)]
    done = subprocess.run(search, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    wanted.unlink()
    assert done.returncode in (0, 1), f"the logs could not be searched: {done.stderr.strip()}"
    found = [f"{leak.kind} is in {leak.file.name}, line {leak.line}" for leak in scan(folder)]
    return found + [f"a secret of the platform is in {Path(file).name}" for file in done.stdout.splitlines()]


def use_keys(publishing: Publishing, management: Management) -> set[str]:
    """Uses an API key, another after it, and a password that is wrong; gives them."""
    found = publishing("tenant-a")
    rotated = str(found.by.rotate(found.model.name)().json()["newApiKey"])
    eventually(found.ask(rotated), answered(200))
    password = f"wrong-{uuid.uuid4().hex}"
    eventually(management.login(username="admin", password=password), refused(401))
    return {str.__str__(found.key), rotated, password}


def environments(platform: Platform) -> list[str]:
    """Every variable of every process of the platform."""
    done = platform.run_beside(["sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; true"])
    found = [entry for entry in done.stdout.decode(errors="replace").split("\0") if entry]
    assert any(entry.startswith("MANAGEMENT_DEMO_CREDENTIALS=") for entry in found), "the processes were not looked at"
    return found


@pytest.fixture
def planted(kube: Kube, forger: Forger) -> Iterator[str]:
    """A ConfigMap with a token in it; a job that never runs, with a Secret's value in one variable and a password of
    its own in another. All of one name, which it gives."""
    name, password = f"sec-37-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex[:12]
    metadata = {"name": name, "namespace": "default"}
    variables = [{"name": "GREETING", "value": password}, {"name": "ADMIN_PASSWORD", "value": "letmein"}]
    pod = {"restartPolicy": "Never", "containers": [{"name": "planted", "image": "planted", "env": variables}]}
    documents = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"settings.yaml": f"endpoint: http://localhost\ncredentials: {str.__str__(forger.expired())}\n"},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"password": password}},
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata,
            "spec": {
                "suspend": True,
                "schedule": "0 0 1 1 *",
                "jobTemplate": {"spec": {"template": {"spec": pod}}},
            },
        },
    ]
    for document in documents:
        kube.create(document).require()
    yield name
    kube.delete_all(documents)


PLANTED = ("settings.yaml", "variable GREETING", "variable ADMIN_PASSWORD")


@scenario("SEC-37", needs=("kubernetes", "logs", "models", "management"), sabotage="secrets.in-configmaps", seconds=12)
def test_secrets_are_in_secrets_only(
    platform: Platform,
    kube: Kube,
    gateway: Gateway,
    tenant_a: Tenant,
    publishing: Publishing,
    management: Management,
    planted: str,
    tmp_path: Path,
    story: Story,
) -> None:
    """No key, token or password of the platform is in a ConfigMap, an environment or a log; the search can find one."""
    with story.given("the values of all Secrets and the key that signs tokens, which nobody else may read"):
        words, short = secret_words(kube, platform), passwords(kube)
        assert words, "no secret of the platform is known, so none can be looked for"
        story.note("looked for", f"{len(words)} lines anywhere, {len(short)} values of variables")
    with story.given("an API key, the one that took its place, and a wrong password have just been used"):
        used = use_keys(publishing, management)
        words |= used
    with story.given("requests with a good, a wrong and no token have just been logged"):
        for call in (gateway.predict(tenant_a.model, token) for token in (tenant_a.token, None)):
            eventually(call, answered(200, 401))
    with story.when("all ConfigMaps, environments and arguments are searched"):
        found = found_in(readable(kube), words, tmp_path) + spelled_out(kube, short)
    with story.then("the search finds the token and the passwords that were planted for it, and nothing else"):
        for what in PLANTED:
            assert any(planted in each and what in each for each in found), f"the search is blind: it missed {what}"
        others = [each for each in found if planted not in each and "/sec-37-" not in each]
        assert not others, others[0]
    with story.then("no process has any of it in its environment"):
        by_reference = referred(kube)
        for entry in environments(platform):
            name, _, value = entry.partition("=")
            assert not any(word in entry for word in words), f"a secret is in the variable {name}"
            assert name in by_reference or value not in short, f"a Secret's value is in the variable {name}"
    with story.then("of API keys only hashes are kept, even in Secrets"):
        kept = secret_words(kube, platform)
        assert not any(key in word for word in kept for key in used), "an API key or password is in a Secret"
    with story.then("no log file has any of it, and a log that had some would be noticed"):
        sample = tmp_path / "sample"
        sample.mkdir()
        (sample / "some.log").write_text(
            f"GET /x key={next(iter(words))}\nGET /y token {str.__str__(tenant_a.token)}\n"
        )
        assert len(logged(sample, words, tmp_path)) >= 2, "the search is blind: it missed what a made-up log says"
        leaks = logged(platform.logs, words, tmp_path)
        assert not leaks, f"{leaks[0]} ({len(leaks)} places)"
