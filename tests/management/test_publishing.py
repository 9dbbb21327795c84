"""Publishing: a model becomes reachable from outside, is changed, and is gone again, whole or not at all."""

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fixtures.gateway import IRIS
from fixtures.limits import await_room_in_minute
from fixtures.management import PLENTY, PUBLIC_HOST, lasting, leftovers, naming, secret, unhurried
from fixtures.scenario import scenario
from inferencebox.checks import (
    answered,
    body_json,
    contains,
    equals,
    header,
    length,
    matches,
    present,
    refused,
    served_by,
    that,
)
from inferencebox.probes.tls import Tls
from inferencebox.traffic import Stream, burst
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

NEEDS = ("management", "gateway", "models")
KEY = r"^ibk_[A-Za-z0-9_-]{43}$"
MADE = {
    "traditional": ("httproute", "backendtrafficpolicy", "configmap"),
    "openai": ("aigatewayroute", "backendtrafficpolicy", "configmap"),
}


SETTLED = 2.0
"""Seconds that answers have to hold: the first one may come before the gateways know all that was wanted last."""


@scenario("MGT-10", needs=NEEDS, sabotage=("management.cannot-create", "publishing.wrong-host"), seconds=8)
def test_a_model_is_published(management, own_model, gateway, kube, story):
    """A request without a word about authentication publishes the model, behind a key; every object is there."""
    model = own_model("tenant-a")
    user = management.user("tenant-a")
    limits = {"requestsPerMinute": 100, "requestsPerHour": 5000, "tokensPerHour": 100000, "burstLimit": 50}
    body = {"tenantId": "tenant-a", "modelType": "traditional", "externalPath": f"/models/{model.name}"}
    with story.when("tenant A publishes it, in the words of the first document's example"):
        seen = user.publish(model.name, **body, rateLimiting=limits, metadata={"team": "flowers"})()
    try:
        with story.then("the reply has all that a client needs, and the key"):
            told = body_json("publishedModel.apiKey", matches(KEY)) & body_json("message", present())
            for name, value in {
                "modelName": model.name,
                "namespace": "tenant-a",
                "tenantId": "tenant-a",
                "modelType": "traditional",
                "publicHostname": PUBLIC_HOST,
                "externalUrl": f"https://{PUBLIC_HOST}/models/{model.name}",
                "status": "active",
                "rateLimiting": limits,
                "usage.totalRequests": 0,
            }.items():
                told &= body_json(f"publishedModel.{name}", equals(value))
            for name in ("createdAt", "updatedAt", "documentation.endpointUrl", "documentation.sdkExamples.curl"):
                told &= body_json(f"publishedModel.{name}", present())
            confirm(seen, answered(200) & told)
        with story.then("claim, key, route, limits and documentation exist"):
            objects = leftovers(kube, "tenant-a", model.name)
            kinds = [entry.split()[0] for entry in objects]
            assert sorted(kinds) == sorted(["publishedmodel", "secret", *MADE["traditional"]]), objects
        with story.then("the gateway takes the route, and asks for the key"):
            for condition in ("Accepted", "ResolvedRefs"):
                kube.wait_condition("httproute", f"published-{model.name}", "tenant-a", condition)
            iris = {"instances": [list(row) for row in IRIS]}
            ask = gateway.at(PUBLIC_HOST).call("POST", f"/models/{model.name}/predict", json=iris)
            by_key = refused(401, by="api-key", at="tier-1")
            eventually(ask, by_key)
        with story.then("with it the model answers, and goes on answering; without it, it still does not"):
            key = secret(seen.json()["publishedModel"]["apiKey"], f"key of {model.name}")
            good = answered(200) & served_by(model)
            eventually(ask.adding(("x-api-key", key)), good)
            consistently(ask.adding(("x-api-key", key)), good, seconds=SETTLED)
            confirm(ask(), by_key)
    finally:
        user.unpublish(model.name)()


@scenario("MGT-11", needs=(*NEEDS, "ai-gateway"), sabotage="management.cannot-create", seconds=12)
@pytest.mark.parametrize("api", ["kserve", "openai"])
def test_what_is_not_said_has_a_default(api, publishing, story):
    """Host, path and type of a published model are found out when nobody says them."""
    found = publishing("tenant-a" if api == "kserve" else "tenant-b", api=api, wait=False)
    kind = "openai" if api == "openai" else "traditional"
    path = f"/v1/models/{found.model.name}" if api == "openai" else f"/published/models/{found.model.name}"
    with story.then(f"it is of type {kind}, at the platform's public host, under its own name"):
        wish = {"modelType": kind, "publicHostname": PUBLIC_HOST, "externalPath": path}
        assert {name: found.told[name] for name in wish} == wish
    with story.then("and answers there"):
        ask = found.chat() if api == "openai" else found.ask()
        eventually(ask, answered(200) & served_by(found.model))


INVALID = [
    ("requestsPerMinute", {"rateLimiting": {"requestsPerMinute": 0, "requestsPerHour": 10}}),
    ("requestsPerMinute", {"rateLimiting": {"requestsPerMinute": -1, "requestsPerHour": 10}}),
    ("requestsPerHour", {"rateLimiting": {"requestsPerMinute": 1, "requestsPerHour": 0}}),
    ("requestsPerMinute is more", {"rateLimiting": {"requestsPerMinute": 100, "requestsPerHour": 10}}),
    ("burstLimit", {"rateLimiting": {**PLENTY, "burstLimit": 0}}),
    ("tokensPerHour", {"rateLimiting": {**PLENTY, "tokensPerHour": -5}}),
    ("requestsPerSecond", {"rateLimiting": {**PLENTY, "requestsPerSecond": 5}}),
    ("modelType", {"modelType": "quantum"}),
    ("modelType", {"modelType": "openai"}),
    ("externalPath", {"externalPath": "no/slash"}),
    ("externalPath", {"externalPath": "/a/../b"}),
    ("externalPath", {"externalPath": "/a//b"}),
    ("externalPath", {"externalPath": "/a?b"}),
    ("externalPath", {"externalPath": "/v1/models/other"}),
    ("externalPath", {"externalPath": "/api/admin"}),
    ("externalPath", {"externalPath": "/tokens"}),
    ("externalPath", {"externalPath": "/" + "a" * 300}),
    ("requireApiKey", {"authentication": {"requireApiKey": False}}),
    ("publicHostname", {"publicHostname": "https://a.inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "a.inference-in-a-box/path"}),
    ("publicHostname", {"publicHostname": "a.inference-in-a-box:8080"}),
    ("publicHostname", {"publicHostname": "a." * 130 + "inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "a_b.inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "a..inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "a--b.inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "undotted"}),
    ("publicHostname", {"publicHostname": "tenant-b.inference-in-a-box"}),
    ("publicHostname", {"publicHostname": "somebody.example"}),
    ("tenantId", {"tenantId": None}),
]
"""What is wrong, as the refusal names it."""


@scenario("MGT-12", needs=NEEDS, sabotage="management.cannot-create", seconds=10)
def test_what_cannot_be_published_is_refused(management, own_model, kube, story):
    """Invalid configurations, models that are not there or not ready, and a second publication are refused."""
    model = own_model("tenant-a")
    with story.then(f"none of {len(INVALID)} invalid configurations is taken"):
        for what, wrong in INVALID:
            # ten calls a second are a user's (MGT-37): each has one of its own here
            asked = management.user("tenant-a").publish(model.name, **wrong).called(f"publish with a wrong {what}")
            confirm(asked(), refused(400) & NAMED & naming(what))
    user = management.user("tenant-a")
    with story.then("nor is a model that does not exist"):
        confirm(user.publish(f"none-{uuid.uuid4().hex[:6]}")(), refused(400, 404) & NAMED)
    with story.then("nor one that is not ready"):
        for replica in model.replicas:
            replica.stop()
        eventually(user.get(f"/api/models/{model.name}"), body_json("ready", equals(False)), every=1)
        confirm(user.publish(model.name)(), refused(400) & NAMED)
        assert not (found := leftovers(kube, "tenant-a", model.name)), found
        for replica in model.replicas:
            replica.start()
    user = management.user("tenant-a")
    with story.then("ready again it is published, once"):
        eventually(user.get(f"/api/models/{model.name}"), body_json("ready", equals(True)), every=1)
        confirm(user.publish(model.name)(), answered(200))
        confirm(user.publish(model.name)(), refused(409) & NAMED)
        confirm(user.unpublish(model.name)(), answered(200))


NAMED = body_json("error", present())


@scenario("MGT-13", needs=NEEDS, sabotage="management.cannot-create", seconds=8)
def test_of_two_publishers_one_wins(management, own_model, gateway, kube, story):
    """When several publish the same model at the same moment, exactly one does, and its key works."""
    model = own_model("tenant-a")
    gate = threading.Barrier(4)
    replies = []

    def publish():
        call = management.user("tenant-a").publish(model.name)
        gate.wait()
        replies.append(call())

    with story.when("four users publish it at the same moment"):
        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    try:
        with story.then("one gets the key, the others are told that it is published"):
            statuses = Counter(seen.status for seen in replies)
            assert statuses == {200: 1, 409: 3}, dict(statuses)
        with story.then("and the key that was given opens it"):
            (won,) = [seen for seen in replies if seen.status == 200]
            key = won.json()["publishedModel"]["apiKey"]
            headers = [("x-api-key", key)]
            path = f"/published/models/{model.name}/predict"
            ask = gateway.at(PUBLIC_HOST).call("POST", path, headers=headers, json={"instances": [[1, 2, 3, 4]]})
            eventually(ask, answered(200) & served_by(model), streak=3)
    finally:
        management.user("tenant-a").unpublish(model.name)()


@dataclass(frozen=True)
class Step:
    """A step of publishing: the object that it makes.

    Args:
        group, resource: of the API.
    """

    group: str
    resource: str

    @property
    def rule(self) -> dict:
        """What an admission rule matches it by."""
        operations = ["CREATE", "UPDATE"]
        return {"apiGroups": [self.group], "apiVersions": ["*"], "resources": [self.resource], "operations": operations}


STEPS = {
    "claim": Step("management.inference-in-a-box", "publishedmodels"),
    "key": Step("", "secrets"),
    "route": Step("gateway.networking.k8s.io", "httproutes"),
    "limits": Step("gateway.envoyproxy.io", "backendtrafficpolicies"),
    "documentation": Step("", "configmaps"),
    "metadata": Step("management.inference-in-a-box", "publishedmodels/status"),
}
OPENAI_STEPS = {
    "backend": Step("gateway.envoyproxy.io", "backends"),
    "AI backend": Step("aigateway.envoyproxy.io", "aiservicebackends"),
    "AI route": Step("aigateway.envoyproxy.io", "aigatewayroutes"),
}


PUBLISHER = "request.userInfo.username == 'system:serviceaccount:default:management'"


def refusing(step: Step, name: str) -> list[dict]:
    """An admission policy of the API that refuses this step to the management service, for this model."""
    meta = {"name": f"refuse-{name}"}
    mine = f"object.metadata.name.contains('{name}')"
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": meta,
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [step.rule]},
                "validations": [{"expression": f"!({PUBLISHER} && {mine})", "message": "not today"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": meta,
            "spec": {"policyName": meta["name"], "validationActions": ["Deny"]},
        },
    ]


def hanging(step: Step, name: str, nobody: str) -> list[dict]:
    """An admission webhook that is never answered: the API server waits for it, and the service for the API server.

    Args:
        nobody: address of somebody who takes connections and says nothing.
    """
    conditions = [
        {"name": "mine", "expression": f"object.metadata.name.contains('{name}')"},
        {"name": "publisher", "expression": PUBLISHER},
    ]
    hook = {
        "name": "hanging.inference-in-a-box.test",
        "clientConfig": {"url": f"https://{nobody}/"},
        "rules": [step.rule],
        "matchConditions": conditions,
        "timeoutSeconds": 20,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = "ValidatingWebhookConfiguration"
    meta = {"name": f"hang-{name}"}
    return [{"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": meta, "webhooks": [hook]}]


SILENT, END = 19443, 19444
SILENCE = f"""
import socket
silent = socket.create_server(("", {SILENT}), backlog=64)  # it listens and says nothing for as long as the test wants
end = socket.create_server(("127.0.0.1", {END}))
end.settimeout(300)
end.accept()
"""
SEEN_AT = f"""
import contextlib, socket
addresses = ["127.0.0.1"]
with contextlib.suppress(OSError):  # a node's own, which its other nodes know too
    addresses.insert(0, socket.gethostbyname(socket.gethostname()))
for address in addresses:
    asker = socket.socket()
    asker.settimeout(2)
    if asker.connect_ex((address, {SILENT})) == 0:
        print(address, end="")
        break
"""
ENDING = f"import socket; socket.create_connection(('127.0.0.1', {END}), 5)"


@contextlib.contextmanager
def silence(platform) -> Iterator[str]:
    """Somebody whom the API server gets to, who takes connections and says nothing; gives the address."""

    def beside(program: str, timeout: float = 30) -> str:
        return platform.run_beside(["python3", "-c", program], timeout=timeout).stdout.decode()

    thread = threading.Thread(target=beside, args=(SILENCE, 310))
    thread.start()
    try:
        address = eventually(lambda: beside(SEEN_AT), that("an address", bool), every=0.5)
        yield f"{address}:{SILENT}"
    finally:
        beside(ENDING)
        thread.join()


@scenario("MGT-14", needs=(*NEEDS, "outages"), sabotage="management.cannot-delete", exclusive=True, seconds=60)
@pytest.mark.parametrize("way", ["refused", "killed"])
def test_nothing_half_published_stays(way, management, own_model, platform, kube, story):
    """Whichever step of publishing fails, or is the last before the service is killed, nothing is left of it."""
    models = [(own_model("tenant-a"), STEPS), (own_model("tenant-b", api="openai"), OPENAI_STEPS)]
    with silence(platform) as nobody:
        for model, name, step in [(model, name, step) for model, steps in models for name, step in steps.items()]:
            with story.when(f"the {name} can't be made ({way})"):
                documents = refusing(step, model.name) if way == "refused" else hanging(step, model.name, nobody)
                for reply in kube.apply(documents):
                    reply.require()
                try:
                    if way == "refused":
                        refused_by_the_api(management, model)
                    else:
                        killed_meanwhile(management, model, platform)
                finally:
                    kube.delete_all(documents)
            with story.then("nothing is left, and nothing is shown as published"):
                gone = that("nothing", lambda found: not found)
                eventually(lambda model=model: leftovers(kube, model.tenant, model.name), gone, within=20, every=0.5)
                confirm(management.user(model.tenant).published(model.name)(), refused(404))
    for model, _ in models:
        with story.then(f"with nothing in the way {model} is published"):
            user = management.user(model.tenant)
            eventually(user.publish(model.name), answered(200), every=1)
            confirm(user.unpublish(model.name)(), answered(200))


def refused_by_the_api(management, model) -> None:
    """Publishes until the API's new admission policy holds; what comes through before that is unpublished."""

    def publish():
        user = management.user(model.tenant)
        seen = user.publish(model.name)()
        if seen.status == 200:
            user.unpublish(model.name)()
        return seen

    eventually(publish, refused(503) & body_json("details", contains("not today")), every=0.5)


def killed_meanwhile(management, model, platform) -> None:
    """Publishes, kills the service while the API keeps it waiting, and waits until it is back."""
    for _ in range(10):
        user = management.user(model.tenant)
        sent = threading.Thread(target=user.publish(model.name))
        sent.start()
        sent.join(2)
        if sent.is_alive():
            break
        user.unpublish(model.name)()  # the webhook is not yet known to the API server
    assert sent.is_alive(), "publishing went on where it should have been held up"
    platform.kill("management")
    sent.join(30)
    platform.start("management")


@scenario("MGT-15", needs=(*NEEDS, "gateway.tls"), sabotage="publishing.wrong-host", seconds=8)
def test_a_published_model_answers_from_outside(platform, publishing, secure_gateway, story):
    """Over HTTPS, with the key alone, the published model answers, within ten seconds of its publication."""
    found = publishing("tenant-a", wait=False)
    ask = secure_gateway.at(found.host).call(
        "POST",
        f"{found.path}/predict",
        headers=[("x-api-key", found.key)],
        json={"instances": [[5.1, 3.5, 1.4, 0.2]]},
        ca=platform.edge_ca,
        sni=found.host,
    )
    with story.when("somebody asks it as the reply to its publication says"):
        seen = eventually(ask, answered(200) & served_by(found.model), within=10)
    with story.then("the model itself answered, once"):
        confirm(found.model.arrivals(request_id=seen.request_id)(), equals(1))
    with story.then("it gets the request as a prediction; neither key nor token nor cookie reaches it"):
        carried = ask.with_(token=found.by.token).adding(("cookie", "session=somebodys"), ("x-stub-echo", "1"))
        got = confirm(carried(), answered(200) & served_by(found.model)).json()
        names = {name.lower() for name, _ in got["headers"]}
        assert "x-request-id" in names, f"the model shows none of the headers: {sorted(names)}"
        assert not names & {"x-api-key", "authorization", "cookie"}, sorted(names)
        assert got["path"] == f"/v1/models/{found.model.name}:predict", got["path"]
    with story.then("and it goes on answering"):
        consistently(ask, answered(200) & served_by(found.model), seconds=SETTLED)


@scenario("MGT-16", needs=(*NEEDS, "ratelimit"), sabotage="limits.published-lifted", seconds=20)
def test_limits_are_changed_in_flight(publishing, story):
    """Limits are raised from 100 to 200 a minute: live within 30 seconds, with the same key and without a failure."""
    found = publishing("tenant-a", rateLimiting={"requestsPerMinute": 100, "requestsPerHour": 100000})
    with story.given("a hundred a minute"):
        eventually(found.ask(), answered(200) & header("x-ratelimit-limit", matches(r"\b100, 100;w=60")))
    # sixty, so that with the rest they are no hundred before the change is live, and no two hundred afterwards
    with Stream(found.ask(), rate=5, requests=60) as running:
        running.collect(10)
        with story.when("the limit becomes two hundred"):
            running.mark("change")
            limits = {"requestsPerMinute": 200, "requestsPerHour": 100000}
            seen = found.by.republish(found.model.name, rateLimiting=limits)()
            confirm(seen, answered(200) & body_json("rateLimiting.requestsPerMinute", equals(200)))
        with story.then("it holds within 30 seconds"):
            live = header("x-ratelimit-limit", matches(r"\b200, 200;w=60"))
            eventually(found.ask(), answered(200) & live, within=Timeouts.current().route, every=1)
        with story.then("more than a hundred are answered in one minute"):
            await_room_in_minute(15)
            more = burst(found.ask(), 101, parallel=4)
            assert more.errors == 0, str(more)
        with story.then("no request failed meanwhile, all with the same key"):
            window = running.window()
            assert window.errors == 0, str(window)
            story.note("requests across the change", str(window))


@scenario("MGT-18", needs=(*NEEDS, "gateway.tls"), sabotage="publishing.wrong-host", seconds=12)
def test_a_host_and_path_of_ones_own(platform, publishing, management, own_model, secure_gateway, story):
    """A model is published under a host and path of its publisher's choice, with a valid certificate."""
    name = f"flowers-{uuid.uuid4().hex[:6]}"
    host = f"{name}.inference-in-a-box"
    found = publishing("tenant-a", publicHostname=host, externalPath="/which/flower", wait=False)
    with story.then("it answers there"):
        eventually(found.ask(), answered(200) & served_by(found.model))
    with story.then("over TLS its certificate is for that host"):
        # OpenSSL takes no wildcard directly below a top-level name, as *.inference-in-a-box is: Python's own check does
        handshake = secure_gateway.at(host).call(
            "POST", "/which/flower/predict", headers=[("x-api-key", found.key)], json={"instances": [[1, 2, 3, 4]]},
            insecure=True, sni=host,
        )  # fmt: skip
        eventually(handshake, answered(200) & served_by(found.model))
        assert any(matches_host(pattern, host) for pattern in certificate_names(secure_gateway, host, platform.edge_ca))
    with story.then("not elsewhere: neither at the public host nor under another path"):
        elsewhere = found.entrance.at(PUBLIC_HOST).call("POST", "/which/flower/predict", json={})
        eventually(elsewhere.adding(("x-api-key", found.key)), refused(404))
    with story.then("another model can't have the same address"):
        other = own_model("tenant-a")
        user = management.user("tenant-a")
        confirm(user.publish(other.name, publicHostname=host, externalPath="/which/flower")(), refused(409))
        confirm(user.published(other.name)(), refused(404))
    with story.then("but the same path of another host is free"):
        free = {"publicHostname": f"{name}-2.inference-in-a-box", "externalPath": "/which/flower"}
        confirm(user.publish(other.name, **free)(), answered(200))
        confirm(user.unpublish(other.name)(), answered(200))
    with story.then("and the first goes on answering"):
        consistently(found.ask(), answered(200) & served_by(found.model), seconds=SETTLED)


def certificate_names(secure_gateway, host: str, authority) -> list[str]:
    """The names in the certificate that the gateway shows for a host, signed by the authority."""
    seen = Tls(secure_gateway.endpoint, host, ca=authority)()
    return list(seen.names)


def matches_host(pattern: str, host: str) -> bool:
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


@scenario("MGT-19", needs=NEEDS, sabotage="publishing.wrong-host", seconds=12)
def test_what_is_published_is_listed_and_moved(publishing, administrator, story):
    """One publication and the list of all say the same; host and path can be changed, and the old address is closed."""
    found = publishing("tenant-a")
    one = found.by.published(found.model.name)

    def page():
        """One entry: that at the place which the model has in the whole list. Others come into it and leave."""
        place = listed_by(administrator, "limit=500").index(found.model.name)
        return listed_by(administrator, f"limit=1&offset={place}")

    with story.then("list and single reply say the same, and show no key"):
        seen = confirm(one(), answered(200)).json()
        listed = confirm(found.by.get("/api/published-models")(), answered(200)).json()
        mine = [each for each in listed["publishedModels"] if each["modelName"] == found.model.name]
        assert [lasting(each) for each in mine] == [lasting(seen)]
        assert seen["apiKey"] != str.__str__(found.key), "the whole key is shown again"
        assert listed["total"] >= len(listed["publishedModels"]) >= 1
    with story.then("the administrator sees it too, and no other tenant's in the same list"):
        assert found.model.name in (names := listed_by(administrator, "limit=500")), names
    with story.then("the list can be read in pages"):
        eventually(page, equals([found.model.name]))
        confirm(listed_by(administrator, "limit=1"), length(equals(1)))
        confirm(listed_by(administrator, "limit=1&offset=100000"), length(equals(0)))
    host = f"moved-{uuid.uuid4().hex[:6]}.inference-in-a-box"
    with story.when("host and path are changed"):
        change = found.by.republish(found.model.name, publicHostname=host, externalPath="/moved")
        moved = body_json("externalUrl", equals(f"https://{host}/moved"))
        confirm(change(), answered(200) & moved)
    with story.then("the same key opens the new address, and the old one is gone"):
        there = found.__class__(found.model, found.by, found.key, {**found.told, **change().json()}, found.entrance)
        eventually(there.ask(), answered(200) & served_by(found.model), within=Timeouts.current().route)
        eventually(found.ask(), refused(404), within=Timeouts.current().route)
    with story.then("what can't be changed is refused"):
        confirm(found.by.republish(found.model.name, modelType="openai")(), refused(400))
        confirm(found.by.republish("never-published", externalPath="/x")(), refused(404))
        confirm(there.ask()(), answered(200) & served_by(found.model))


def listed_by(administrator, query: str) -> list[str]:
    """Models of tenant A in this part of the administrator's list."""
    seen = unhurried(administrator.get(f"/api/published-models?namespace=tenant-a&{query}"))
    entries = confirm(seen, answered(200)).json()["publishedModels"]
    assert {each["namespace"] for each in entries} <= {"tenant-a"}
    return [each["modelName"] for each in entries]


@scenario("MGT-20", needs=NEEDS, sabotage="management.cannot-delete", seconds=10)
def test_what_is_unpublished_is_gone(publishing, management, kube, story):
    """Unpublished, a model answers 404 outside within 30 seconds, its key is worth nothing, its objects are gone."""
    found = publishing("tenant-a")
    key = management.anonymous.call("POST", "/api/validate-api-key", {"apiKey": found.key})
    with story.given("a published model with a good key"):
        confirm(key(), answered(200))
    with story.when("it is unpublished"):
        confirm(found.by.unpublish(found.model.name)(), answered(200))
    with story.then("its key is worth nothing at once"):
        confirm(key(), refused(401))
    with story.then("its address is nobody's within 30 seconds"):
        eventually(found.ask(), refused(404), streak=3, within=Timeouts.current().route)
    with story.then("all its objects are gone"):
        eventually(lambda: leftovers(kube, "tenant-a", found.model.name), equals([]), within=10)
    with story.then("a second time there is nothing to unpublish; the model itself is still there"):
        confirm(found.by.unpublish(found.model.name)(), refused(404))
        confirm(found.by.published(found.model.name)(), refused(404))
        confirm(found.by.get(f"/api/models/{found.model.name}")(), answered(200) & body_json("ready", equals(True)))
    with story.then("and it can be published again, with another key"):
        again = confirm(found.by.publish(found.model.name)(), answered(200)).json()["publishedModel"]
        assert again["apiKey"] != str.__str__(found.key)
        confirm(key(), refused(401))
