"""What runs is what the release says, it is well, and it answers where it says."""

import re

import jwt
import pytest

from fixtures.nodes import are_ours, with_kubelets
from fixtures.scenario import not_exercised, scenario
from fixtures.telemetry import grafana_of
from inferencebox import policies
from inferencebox.census import running_images
from inferencebox.checks import (
    answered,
    at_least,
    body_json,
    equals,
    no_connection,
    present,
    refused,
    served_by,
    that,
)
from inferencebox.evidence import note
from inferencebox.identity import ISSUER, KEY_ID
from inferencebox.layers.catalogue import layers
from inferencebox.layers.install import Record
from inferencebox.layers.labels import INSTANCE
from inferencebox.probes.http import Call
from inferencebox.release import Release
from inferencebox.waiting import confirm, eventually

IN_USE = ("kubernetes", "etcd", "envoy-gateway", "ai-gateway", "ratelimit", "istio", "envoy", "redis")
ONLY_TOOLS = {"kubectl", "kubeadm", "istioctl"}
OF_NODES = {"kubelet", "kube-proxy"}
"""What runs pods: not there where none ever runs."""
COMES_WITH = {"envoy-gateway": "ratelimit", "kserve": "kube-rbac-proxy"}
"""Installed layer -> a layer of the release that its chart brings along."""
ON_DEMAND = {"kserve-agent", "kserve-router"}
"""Run beside models that ask for them, and not before."""


def disagreements(release, running):
    """Programs that run in another version than the release pins."""
    wrong = []
    for program in running:
        pin = release.programs[program.name]
        if pin.version_check:
            same = re.search(pin.version_check.pattern, f"{program.told} ")
        else:
            same = program.told == f"{pin.module.module} {pin.module.version or pin.version}"
        if not same:
            wrong.append(f"{program.name} is pinned to {pin.version} and says {program.told!r}")
    return sorted(set(wrong))


def programs_are_pinned(platform, release, story):
    """Where the platform's programs are processes of this machine: each is asked."""
    if why := platform.capabilities["processes"]:
        not_exercised(why)
    with story.when("the running processes are asked"):
        running = platform.running()
        versions = {program.name: program.told for program in running}
        note("versions", "\n".join(f"{name}: {told}" for name, told in sorted(versions.items())))
    with story.then("all pinned programs of the platform run"):
        wanted = {name for layer in IN_USE for name in release.layers[layer].programs} - ONLY_TOOLS - OF_NODES
        assert not wanted - set(versions), f"not running: {', '.join(sorted(wanted - set(versions)))}"
    with story.then("each in its pinned version"):
        wrong = disagreements(release, running)
        assert not wrong, "; ".join(wrong)
    with story.then("and another pin would have been noticed"):
        proxy = next(program for program in running if program.name == "envoy")
        other = type(proxy)(proxy.name, proxy.pid, proxy.started, proxy.told.replace("1.38.3", "1.38.2"))
        assert disagreements(release, [other]), "a proxy of another version was not noticed"


def images_are_pinned(kube, release, story):
    """Where they are pods: what their containers run from is what the release names."""
    pinned = {image.reference for image in release.images.values()}
    ours = {each["metadata"]["name"] for each in kube.list("namespaces", labels=INSTANCE).items}
    with story.when("the running pods are asked for their images"):
        running = {
            (pod["metadata"]["namespace"], image)
            for pod in kube.list("pods").require()["items"]
            for image in running_images(pod)
        }
        images = {image for _, image in running}
        note("images", "\n".join(sorted(images)))
    installed = Record(kube).read()
    with story.then(f"each of the {len(installed)} installed layers runs, in the release's version"):
        assert installed, "no layer is noted as installed"
        missing = sorted(images_of(release, installed) - images)
        assert not missing, f"not running: {', '.join(missing)}"
    with story.then("and in the platform's namespaces nothing else does"):
        assert not (found := strangers(running, ours, pinned)), f"the release does not name {', '.join(found)}"
    with story.then("another pin would have been noticed"):
        assert strangers(running, ours, pinned - {release.images["envoy"].reference}), "another Envoy was not noticed"


def images_of(release, installed):
    """What containers of these layers run from as soon as they are installed."""
    known = layers()
    names = {image for layer in installed for image in known[layer].images.values()}
    for layer in {name for each in installed for name in (known[each].release, COMES_WITH.get(each))}:
        names |= set(release.layers[layer].programs) - ONLY_TOOLS - ON_DEMAND if layer in release.layers else set()
    return {(release.images.get(name) or release.programs[name].image).reference for name in names}


def strangers(running, namespaces, pinned):
    """Images that run in these namespaces and are not pinned."""
    return sorted({image for namespace, image in running if namespace in namespaces and image not in pinned})


@scenario(
    "OPS-04",
    needs=("kubernetes", "mesh", "ratelimit"),
    why_no_sabotage="another version would have to be built first; the test shows that another pin is noticed",
    seconds=3,
)
def test_what_runs_is_what_is_pinned(platform, kube, story):
    """All that runs is in the version that the release pins: programs say their version, pods their images."""
    release = Release.load(platform.release)
    if platform.capabilities["pods"]:
        programs_are_pinned(platform, release, story)
    else:
        images_are_pinned(kube, release, story)
    nodes = with_kubelets(kube)
    if are_ours(nodes):
        with story.then("the API server says the same of Kubernetes, and so does each kubelet"):
            pinned = release.layers["kubernetes"].version
            confirm(kube.version(), equals(pinned))
            confirm({node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} - {pinned}, equals(set()))
    with story.then("and istiod of itself, over its own port"):
        istiod = Call("GET", platform.endpoint("istiod"), "/version")
        pinned = re.escape(release.layers["istio"].version.removeprefix("v"))
        said = that(f"Istio {pinned}", lambda seen: re.match(rf"{pinned}\b", seen.text) is not None)
        eventually(istiod, answered(200) & said)


@scenario(
    "OPS-05",
    needs=("gateway", "models", "kubernetes", "ratelimit"),
    sabotage=("openai.route-removed", "models.broken-replies"),
    seconds=4,
)
def test_everything_is_up_and_accepted(platform, kube, tenants, tiny_llm, tiny_llm_b, gateway, story):
    """Every part runs, the gateway is programmed, every shipped route is accepted, and every model answers."""
    with story.then("every part of the platform runs"):
        parts = [part for part in platform.components() if not part.added]
        assert parts, "the platform has no parts"
        broken = [f"{part.name}: {part.state}" for part in parts if part.state != "running"]
        assert not broken, ", ".join(broken)
    with story.then("the gateway is accepted and programmed"):
        for condition in ("Accepted", "Programmed"):
            kube.wait_condition("gateway", policies.GATEWAY, policies.GATEWAY_NAMESPACE, condition)
    shipped = [document for batch in policies.batches("strict") for document in batch]
    routes = [each["metadata"] for each in shipped if each["kind"] == "HTTPRoute"]
    ai_routes = [each["metadata"] for each in shipped if each["kind"] == "AIGatewayRoute"]
    with story.then(f"all {len(routes) + len(ai_routes)} shipped routes are accepted, and what they name is there"):
        for route in routes:
            for condition in ("Accepted", "ResolvedRefs"):
                kube.wait_condition("httproute", route["name"], route["namespace"], condition)
        for route in ai_routes:
            kube.wait_condition("aigatewayroute", route["name"], route["namespace"], "Accepted")
    with story.then("every model answers through both gateways"):
        for tenant in tenants:
            ready = gateway.get(f"/v2/models/{tenant.model.name}/ready", tenant.token)
            eventually(ready, answered(200) & served_by(tenant.model) & body_json("ready", equals(True)))
        token = next(tenant.token for tenant in tenants if tenant.name == tiny_llm.tenant)
        for model in (tiny_llm, tiny_llm_b):
            eventually(gateway.chat(model, token, body={"max_tokens": 1}), answered(200) & served_by(model))


TIER_1 = ("gateway", "gateway-tls")
GREETED = answered(200) & body_json("service", equals("default-backend"))
ENTRANCES = {
    "gateway": ("/", GREETED),
    "gateway-tls": ("/", GREETED),
    "jwt-server": ("/health", answered(200) & body_json("status", equals("healthy"))),
    "management": ("/health", answered(200) & body_json("timestamp", present())),
    "grafana": ("/api/health", answered(200) & body_json("database", equals("ok"))),
    "prometheus": ("/api/v1/status/buildinfo", answered(200) & body_json("data.version", present())),
    "jaeger": ("/api/services", answered(200) & body_json("total", at_least(0))),
    "kiali": ("/kiali/healthz", answered(200)),
    "kubernetes": ("/api", answered(401, 403) & body_json("kind", equals("Status"))),
    "tier2-http": ("/", refused(403, by="rbac", at="tier-2")),
}
"""SPEC 1.8's port map by name, for ports are chosen free, and the ways in beside it: what somebody without a token asks
there, and what answers."""


def only_its_administrator_gets_in(platform, story):
    """Grafana: the administrator's login works (SPEC D4), another password does not, and nobody comes in without."""
    door = platform.endpoint("grafana")
    form = {"user": "admin", "password": "prom-operator"}
    with story.then("its administrator logs in, as the login page does"):
        eventually(Call("POST", door, "/login", json=form), answered(200))
        eventually(grafana_of(platform).get("/api/user"), answered(200) & body_json("isGrafanaAdmin", equals(True)))
    with story.then("not with another password, nor without any"):
        confirm(Call("POST", door, "/login", json={**form, "password": "another"})(), answered(401))
        confirm(Call("GET", door, "/api/user")(), answered(401))
        confirm(Call("GET", door, "/api/search")(), answered(401))


def only_tier_1_gets_in(platform, story):
    with story.then("its other port makes no connection without tier 1's certificate"):
        confirm(Call("GET", platform.endpoint("tier2"), "/", insecure=True, fresh=True)(), no_connection())


MORE = {"grafana": only_its_administrator_gets_in, "tier2-http": only_tier_1_gets_in}


@scenario(
    "OPS-08",
    needs=("gateway",),
    wants=("prometheus", "jaeger", "grafana", "kiali"),
    sabotage=("default-backend.gone", "management.down", "grafana.anonymous"),
    seconds=1,
)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_it_answers_where_it_says(platform, entrance, story):
    """Each entrance answers at the address that the platform tells; Grafana lets its administrator in."""
    if why := platform.capabilities.get(entrance):
        not_exercised(why)
    door, (path, answer) = platform.endpoint(entrance), ENTRANCES[entrance]
    with story.then(f"{entrance} answers"):
        story.note("where", door.url)
        how = {"host": "localhost", "ca": platform.edge_ca} if entrance in TIER_1 else {"insecure": True}
        eventually(Call("GET", door, path, **how), answer)
    if entrance in MORE:
        MORE[entrance](platform, story)


@scenario("OPS-09", needs=("gateway.jwt",), sabotage="jwt.foreign-jwks", seconds=2)
def test_the_jwt_server_signs_what_its_keys_verify(platform, tenants, gateway, story):
    """The JWT server publishes its keys, and the three tenants' tokens verify against them, here and at the gateway."""
    server = platform.endpoint("jwt-server")

    def ask(path):
        return Call("GET", server, path)

    with story.then("it is healthy, and says 404 in JSON to what it does not know"):
        eventually(ask("/health"), answered(200) & body_json("status", equals("healthy")))
        eventually(ask("/nowhere"), answered(404) & body_json("error", present()))
    with story.then("its keys are RSA keys for signatures, with nothing private in them"):
        keys = eventually(ask("/.well-known/jwks.json"), answered(200)).json()["keys"]
        for key in keys:
            facts = {name: key.get(name) for name in ("kty", "alg", "use")}
            assert facts == {"kty": "RSA", "alg": "RS256", "use": "sig"}, f"a key says {facts}"
            assert set(key) == {"kty", "alg", "use", "kid", "n", "e"}, f"a key has {sorted(key)}"
        assert KEY_ID in {key["kid"] for key in keys}, f"keys {[key['kid'] for key in keys]}"
    published = {key["kid"]: jwt.PyJWK(key) for key in keys}
    for tenant in tenants:
        with story.then(f"{tenant}'s token verifies and says who it is"):
            raw = str.__str__(tenant.token)
            kid = jwt.get_unverified_header(raw)["kid"]
            claims = jwt.decode(raw, published[kid], ["RS256"], issuer=ISSUER, audience=tenant.name)
            assert (claims["tenant"], claims["sub"]) == (tenant.name, tenant.user), f"it says {sorted(claims)}"
            lifetime = claims["exp"] - claims["iat"]
            assert lifetime == 24 * 3600, f"it lives {lifetime} s"
        with story.then("and the gateway takes it"):
            model = tenant.model
            eventually(gateway.get(f"/v1/models/{model.name}", tenant.token), answered(200) & served_by(model))
    with story.then("a key that is not published verifies nothing"), pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(tamper(raw), published[kid], ["RS256"], issuer=ISSUER, audience=tenant.name)


def tamper(raw):
    """The token with another signature."""
    text, _, signature = raw.rpartition(".")
    return f"{text}.{signature[:-8]}{'AAAAAAAA' if signature[-8:] != 'AAAAAAAA' else 'BBBBBBBB'}"
