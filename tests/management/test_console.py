"""What administrators see, and what nobody reaches through the service."""

import time

import pytest

from fixtures.gateway import IRIS
from fixtures.management import unhurried
from fixtures.scenario import scenario
from inferencebox import policies
from inferencebox.checks import answered, body_json, contains, equals, one_of, present, refused, that
from inferencebox.probes.kubernetes import service_account
from inferencebox.waiting import confirm, eventually

NEEDS = ("management",)
NAMED = body_json("error", present())


@scenario("MGT-30", needs=(*NEEDS, "kubernetes", "gateway", "models"), sabotage="management.blind", seconds=6)
def test_the_administrator_sees_the_platform(administrator, publishing, kube, story):
    """System, tenants, resources and the gateway are shown; kubectl's words show what kubectl would."""
    with story.then("nodes, namespaces and deployments are those of the cluster"):
        names = {item["metadata"]["name"] for item in kube.list("namespace").require()["items"]}
        shown = that("the cluster's", lambda found: names <= {each["name"] for each in found})
        seen = confirm(
            unhurried(administrator.get("/api/admin/system")), answered(200) & body_json("namespaces", shown)
        )
        assert {each["name"] for each in seen.json()["namespaces"]} >= {"default", "tenant-a", "ai-gateway"}
        assert isinstance(seen.json()["nodes"], list)
        assert {each["name"] for each in seen.json()["deployments"]} == {
            item["metadata"]["name"] for item in kube.list("deployment").require()["items"]
        }
    with story.then("the tenants are A, B and C"):
        tenants = confirm(unhurried(administrator.get("/api/admin/tenants")), answered(200)).json()["tenants"]
        assert [each["name"] for each in tenants] == ["tenant-a", "tenant-b", "tenant-c"]
        assert all(each["status"] == "Active" and each["created"] for each in tenants)
    with story.then("resources and the gateway"):
        routes = body_json("resources.httpRoutes", that("with tenant A's model", lambda f: "sklearn-iris" in str(f)))
        confirm(unhurried(administrator.get("/api/admin/resources")), answered(200) & routes)
        gateway = body_json("name", equals("ai-inference-gateway")) & body_json("conditions", contains(PROGRAMMED))
        confirm(unhurried(administrator.get("/api/admin/ai-gateway-service")), answered(200) & gateway)
    with story.then("kubectl's words"):
        published = publishing("tenant-a", wait=False).model.name
        for command, part in {**COMMANDS, "get publishedmodels -n tenant-a": published}.items():
            seen = confirm(
                unhurried(administrator.kubectl(command)), answered(200) & body_json("command", equals(command))
            )
            assert part in seen.json()["result"], f"{command}: {seen.json()['result'][:200]}"
    with story.then("what is not there is said so"):
        confirm(unhurried(administrator.kubectl("get service no-such-service")), refused(404) & NAMED)
        confirm(unhurried(administrator.kubectl("logs no-such-pod -n tenant-a")), refused(404) & NAMED)


PROGRAMMED = {"type": "Programmed", "status": "True"}
COMMANDS = {
    "get namespaces": "tenant-a",
    "kubectl get svc -n tenant-a": "sklearn-iris",
    "get httproutes -A": "tenant-c",
    "describe service sklearn-iris -n tenant-a": "selector",
    "get service/sklearn-iris -n tenant-a -o json": '"clusterIP"',
    "get svc -n tenant-a -l app=sklearn-iris -o name": "services/sklearn-iris",
}

NOBODYS = "made-by-the-console"
FORBIDDEN = {
    "only get, describe, logs, top": [
        "delete svc sklearn-iris -n tenant-a",
        "exec -n tenant-a sklearn-iris -- id",
        "apply -f /etc/passwd",
        "edit svc sklearn-iris -n tenant-a",
        "scale deployment management --replicas=0",
        f"create ns {NOBODYS}",
        "patch svc sklearn-iris -n tenant-a",
        "label svc sklearn-iris -n tenant-a app=x",
        "proxy",
        "port-forward svc/sklearn-iris 80 -n tenant-a",
        "cp x y",
        "auth can-i get pods",
        "config view",
    ],
    "there is no shell here": [
        "get ns; id",
        "get ns | cat",
        "get ns && id",
        "get ns > /tmp/x",
        "get ns $(id)",
        "get ns `id`",
        "get ns\nid",
        "get svc -o jsonpath={.items}",
    ],
    "is not allowed: -n, -A, -l": [
        "get svc --as=admin",
        "get svc --as admin",
        "get svc --as-group=system:masters",
        "get svc --kubeconfig=/root/.kube/config",
        "get svc --token=abc",
        "get svc --server=https://x",
        "get svc -s https://x",
        "get --raw /api/v1/secrets",
        "get -f /etc/passwd",
        "get -k /etc",
        "logs x --previous=../../secrets",
    ],
    "can't be the value of": ["get svc -o go-template-file=/etc/passwd", "get svc -n ../secrets"],
    "that is no object's name": ["get svc ../secrets/management-admin"],
    "that is no pod's name": ["logs ../../secrets"],
    "the API knows no kind 'all'": ["get all -n management"],
    "body.command: String should have at least 1 character": [""],
}
"""Commands by the reason that is given."""
SECRETS = [
    "get secrets",
    "get secret -A",
    "get Secret management-admin -n management",
    "get secrets.v1.",
    "get secret/management-admin -n management",
    "get svc,secrets -n management",
    "describe secret management-admin -n management",
]


@scenario(
    "MGT-31", needs=(*NEEDS, "kubernetes"), sabotage=("management.blind", "management.cluster-admin"), seconds=6
)  # fmt: skip
def test_the_console_only_reads(administrator, kube, story):
    """Every command that changes, escapes, borrows an identity or asks for Secrets is refused, and nothing runs."""
    with story.given("a command that is allowed"):
        confirm(unhurried(administrator.kubectl("get ns")), answered(200) & body_json("result", contains("tenant-a")))
    before = standing_services(kube)
    wrong = [
        (command, refused(400) & body_json("details", contains(why)))
        for why, commands in FORBIDDEN.items()
        for command in commands
    ]
    hidden = refused(403) & body_json("error", equals("Secrets are not shown"))
    wrong += [(command, hidden) for command in SECRETS]
    with story.then(f"none of {len(wrong)} others is, each for its own reason"):
        for command, named in wrong:
            seen = confirm(unhurried(administrator.kubectl(command)), named)
            assert "uid=" not in seen.text, f"{command!r} ran in a shell"
    with story.then("nothing has changed, and nothing was made"):
        assert standing_services(kube) == before
        assert kube.get("namespace", NOBODYS).status == 404
    with story.then("and the service's own account, which may look, could not read Secrets or change what runs"):
        account = kube.acting_as(service_account("default", "management"))
        assert account.can_i("list", "services", "tenant-a"), "it may not even list Services in tenant-a"
        for verb, resource, space in (
            ("get", "secrets", "tenant-a"),
            ("list", "secrets", "kube-system"),
            ("get", "secrets", "ai-gateway"),
            ("delete", "namespaces", None),
            ("create", "pods", "tenant-a"),
            ("create", "rolebindings", "tenant-a"),
            ("update", "authorizationpolicies", "tenant-a"),
            ("delete", "services", "tenant-a"),
        ):
            assert not account.can_i(verb, resource, space), f"it may {verb} {resource} in {space}"


def standing_services(kube):
    """Version of each Service that the platform itself has; scenarios beside this one make and remove their own."""
    listed = kube.list("service").require()["items"]
    standing = {(each["namespace"], each["name"]) for each in bootstrapped("Service")}
    found = {(item["metadata"]["namespace"], item["metadata"]["name"]): item["metadata"] for item in listed}
    assert standing <= found.keys(), f"gone: {standing - found.keys()}"
    return {name: found[name]["resourceVersion"] for name in standing}


def bootstrapped(kind):
    """The objects of a kind that the shipped policies make."""
    documents = [document for batch in policies.batches("strict") for document in batch]
    return [document["metadata"] for document in documents if document["kind"] == kind]


METADATA = "169.254.169.254"
INSIDE = [
    {"host": METADATA, "path": "/latest/meta-data/"},
    {"host": "metadata", "dnsResolve": [{"host": "metadata", "address": METADATA}]},
    {
        "host": "kubernetes.default.svc",
        "protocol": "https",
        "dnsResolve": [{"host": "kubernetes.default.svc", "address": "10.99.0.1"}],
    },
    {"host": "10.99.0.1", "port": 6443, "protocol": "https", "path": "/api/v1/secrets"},
    {"host": "127.0.0.1", "port": 8080, "path": "/metrics"},
    {"host": "localhost", "port": 15000, "path": "/config_dump"},
    {"host": "[::1]", "port": 15000},
    {"host": "[::ffff:127.0.0.1]", "port": 15000},
    {"host": "0.0.0.0", "port": 8080},
    {"host": "10.99.0.5", "port": 6379},
    {"host": "10.99.0.2", "port": 19000, "path": "/config_dump"},
    {"host": "jwt-server.default.svc.cluster.local", "port": 8080, "path": "/tokens"},
    {"host": "sklearn-iris.tenant-a.svc.cluster.local", "path": "/v1/models/sklearn-iris:predict"},
    {"host": "2130706433", "port": 8080},
    {"host": "0x7f000001", "port": 8080},
    {"host": "file", "path": "file:///etc/passwd"},
    {"host": "a@127.0.0.1"},
    {"host": "127.0.0.1#.example.com"},
    {"host": ""},
    {"protocol": "file", "host": "etc", "path": "/passwd"},
    {"protocol": "gopher", "host": "127.0.0.1"},
    {"host": "api.router.inference-in-a-box", "path": "/x\r\nX: y"},
]


KEPT_IN = refused(400, 403) & body_json(
    "error", one_of("this destination may not be asked", "invalid connection settings", "the request is not valid")
)


@scenario(
    "MGT-32", needs=(*NEEDS, "gateway", "models"), sabotage="management.test-calls-anywhere", seconds=10
)  # fmt: skip
def test_test_calls_stay_outside(management, publishing, story):
    """A test call to the cloud's metadata, the Kubernetes API, to other services or files is refused, at both doors."""
    found = publishing("tenant-a")
    doors = {
        f"/api/models/{found.model.name}/predict": ({}, "predictions"),
        "/api/publish/test/execute": ({"modelName": found.model.name, "apiKey": found.key}, "body.predictions"),
    }

    def ask(path, **said):
        return management.user("tenant-a").call("POST", path, {**doors[path][0], **said})

    with story.given("test calls of a model, and of what is published of it, are answered"):
        for path, (_, part) in doors.items():
            plain = ask(path, inputData={"instances": [list(row) for row in IRIS]})
            eventually(plain, answered(200) & body_json(part, equals([0])), every=1)
    with story.then(f"none of {len(INSIDE)} others leads anywhere"):
        for path in doors:
            for settings in INSIDE:
                told = ask(path, inputData={}, connectionSettings={"useCustom": True, **settings})
                seen = confirm(told.called(f"ask {settings} at {path}")(), KEPT_IN)
                hints = ("root:", "ami-id", "redis", "config_dump", "eyJ", "apiVersion")
                assert not any(hint in seen.text for hint in hints), f"{settings} gave {seen.text[:200]}"


@scenario("MGT-33", needs=(*NEEDS, "gateway", "models"), sabotage="management.other-gateway", seconds=4)
def test_a_name_is_looked_up_where_the_caller_says(management, platform, tenant_a, story):
    """A name that no name server knows reaches the address that the test call says, under that name."""
    address = gateway_address(platform)
    user = management.user("tenant-a")
    host = "tenant-a.inference-in-a-box"

    def ask(**settings):
        wanted = {"useCustom": True, "host": host, "path": "/v1/models/sklearn-iris:predict", **settings}
        body = {"inputData": {"instances": [[5.1, 3.5, 1.4, 0.2]]}, "connectionSettings": wanted}
        return user.call("POST", "/api/models/sklearn-iris/predict", body)

    with story.given("a name that leads nowhere by itself"):
        unknown = refused(400) & body_json("details", contains("host: no name server knows it"))
        confirm(ask()(), unknown)
    with story.when("the caller says where it is"):
        reply = ask(dnsResolve=[{"host": host, "port": 80, "address": address}])
    with story.then("that address is asked, under that name, and the model answers"):
        arrivals = tenant_a.model.arrivals(since=time.time())
        seen = eventually(reply, answered(200) & body_json("predictions", equals([0])), every=1)
        assert arrivals() > 0, "the model did not see it"
        assert seen.headers["x-upstream-status"] == "200"
    with story.then("for another port than asked it is not meant"):
        confirm(ask(dnsResolve=[{"host": host, "port": 81, "address": address}])(), unknown)


def gateway_address(platform) -> str:
    """Where tier 1 is for a workload."""
    done = platform.run_beside(["getent", "hosts", "ai-gateway.ai-gateway.svc.cluster.local"])
    if done.returncode != 0:
        pytest.fail("the gateway's name is not known in the platform's network")
    return done.stdout.decode().split()[0]
