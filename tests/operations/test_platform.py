"""What runs is what the release says, it is well, and it answers where it says."""

import re

import jwt
import pytest

from fixtures.scenario import not_exercised, scenario
from fixtures.telemetry import grafana_of
from inferencebox import policies
from inferencebox.checks import answered, body_json, equals, no_connection, present, refused, served_by, that
from inferencebox.evidence import note
from inferencebox.identity import ISSUER, KEY_ID
from inferencebox.layers.catalogue import Own, layers
from inferencebox.manifests import load
from inferencebox.paths import manifests_dir
from inferencebox.probes.http import Call
from inferencebox.release import Release
from inferencebox.waiting import eventually

IN_USE = ("kubernetes", "etcd", "envoy-gateway", "ai-gateway", "ratelimit", "istio", "envoy", "redis")
ONLY_TOOLS = {"kubectl", "kubeadm", "istioctl"}
EXACT = re.compile(r"\d+\.\d+|^[0-9a-f]{8,40}$")
"""A version's number, or a commit: who tags images by commit has nothing else."""
OF_NODES = {"kubelet", "kube-proxy"}
"""What runs pods: not there where none ever runs."""
ENTRANCE = "observability/entrance.yaml"


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


@scenario(
    "OPS-04",
    needs=("kubernetes", "mesh", "processes", "ratelimit"),
    why_no_sabotage="another version would have to be built first; the test shows that another pin is noticed",
    seconds=3,
)
def test_what_runs_is_what_is_pinned(platform, kube, story):
    """Every program of the running platform is asked its version: it is the one that the release pins."""
    release = Release.load(platform.release)
    with story.when("the running processes are asked"):
        running = platform.running()
        versions = {program.name: program.told for program in running}
        note("versions", "\n".join(f"{name}: {told}" for name, told in sorted(versions.items())))
    with story.then("all pinned programs of the platform run"):
        wanted = {name for layer in IN_USE for name in release.layers[layer].programs} - ONLY_TOOLS
        wanted -= OF_NODES if platform.capabilities["pods"] else set()
        assert not wanted - set(versions), f"not running: {', '.join(sorted(wanted - set(versions)))}"
    with story.then("each in its pinned version"):
        wrong = disagreements(release, running)
        assert not wrong, "; ".join(wrong)
    with story.then("the API server and istiod say the same over their own ports"):
        served = kube.version()
        assert served == release.layers["kubernetes"].version, f"the API server says {served}"
        istiod = Call("GET", platform.endpoint("istiod"), "/version")
        pinned = re.escape(release.layers["istio"].version.removeprefix("v"))
        said = that(f"Istio {pinned}", lambda seen: re.match(rf"{pinned}\b", seen.text) is not None)
        eventually(istiod, answered(200) & said)
    with story.then("and another pin would have been noticed"):
        proxy = next(program for program in running if program.name == "envoy")
        other = type(proxy)(proxy.name, proxy.pid, proxy.started, proxy.told.replace("1.38.3", "1.38.2"))
        assert disagreements(release, [other]), "a proxy of another version was not noticed"


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


def grafana_answers(platform, story):
    """The administrator's login works (SPEC D4), another password does not, and nobody comes in without."""
    if why := platform.capabilities.get("grafana"):
        not_exercised(why)
    door = platform.endpoint("grafana")
    form = {"user": "admin", "password": "prom-operator"}
    with story.then("its administrator logs in, as the login page does"):
        eventually(Call("POST", door, "/login", json=form), answered(200))
        eventually(grafana_of(platform).get("/api/user"), answered(200) & body_json("isGrafanaAdmin", equals(True)))
    with story.then("not with another password, nor without any"):
        eventually(Call("POST", door, "/login", json={**form, "password": "another"}), answered(401))
        eventually(Call("GET", door, "/api/user"), answered(401))
        eventually(Call("GET", door, "/api/search"), answered(401))


@scenario("OPS-08", needs=("gateway",), sabotage=("default-backend.gone", "grafana.anonymous"), seconds=2)
@pytest.mark.parametrize("part", ["entrances", "Grafana"])
def test_it_answers_where_it_says(platform, gateway, secure_gateway, part, story):
    """Each entrance answers at the address that the platform tells; Grafana lets its administrator in."""
    if part == "Grafana":
        grafana_answers(platform, story)
        return
    with story.then("the AI gateway, plain and over TLS"):
        greeted = answered(200) & body_json("service", equals("default-backend"))
        eventually(gateway.get("/"), greeted)
        eventually(secure_gateway.get("/", ca=platform.edge_ca, sni="localhost"), greeted)
    with story.then("the JWT server"):
        health = Call("GET", platform.endpoint("jwt-server"), "/health")
        eventually(health, answered(200) & body_json("status", equals("healthy")))
    with story.then("the Kubernetes API: it wants to know who asks"):
        secured = Call("GET", platform.endpoint("kubernetes"), "/api", insecure=True)
        eventually(secured, answered(401, 403) & body_json("kind", equals("Status")))
    with story.then("tier 2: without tier 1's certificate there is no connection, and its plain port says no"):
        eventually(Call("GET", platform.endpoint("tier2"), "/", insecure=True, fresh=True), no_connection())
        eventually(Call("GET", platform.endpoint("tier2-http"), "/"), refused(403, by="rbac", at="tier-2"))


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


@scenario(
    "OPS-11",
    needs=("kubernetes",),
    why_no_sabotage="its subject is files, not what runs; the test shows that wrong ones are noticed",
    seconds=6,
)
def test_the_manifests_are_right_and_pinned(kube, story):
    """Every shipped manifest is valid, the API server would take it as it is, and no version is left open."""
    documents = [document for batch in policies.batches("strict") for document in batch]
    values = {"state": "/tmp", "envoy_version": "1.38.3", "envoy_image": "envoy:v1.38.3"}
    documents += [document for place in ("local", "kubernetes") for document in policies.proxy(place, values)]
    documents += load(manifests_dir() / "management" / "crds")
    documents += policies.telemetry()
    documents += entrances()
    with story.then(f"the API server takes all {len(documents)} objects, field by field, without storing them"):
        refusals = [f"{reply.asked}: {reply}" for reply in kube.apply(documents, dry_run=True) if not reply.ok]
        assert not refusals, refusals[0]
    with story.then("it would have noticed a field that does not exist"):
        route = next(document for document in documents if document["kind"] == "HTTPRoute")
        misspelt = {**route, "spec": {**route["spec"], "hostnamez": ["x"]}}
        (reply,) = kube.apply([misspelt], dry_run=True)
        assert reply.cause == "schema", f"a misspelt field got {reply}"
    with story.then("every file of the folder is one of those objects, or data that is read with them"):
        found = {path.relative_to(manifests_dir()).parts[0] for path in manifests_dir().rglob("*.yaml")}
        known = {
            "gateway",
            "layers",
            "management",
            "mesh",
            "models",
            "observability",
            "tenants",
            "providers",
            "releases",
        }
        known |= {"images.yaml", "known-gaps.yaml"}
        assert not found - known, f"nobody applies {', '.join(sorted(found - known))}"
    with story.then("no image and no pin of a release is loose"):
        loose = [f"{image} in {kind}" for kind, image in images(documents) if is_loose(image)]
        assert not loose, "; ".join(loose)
        for name in Release.names():
            release = Release.load(name)
            loose = [layer for layer, pin in release.layers.items() if not EXACT.search(pin.version)]
            loose += [
                program.image.reference
                for program in release.programs.values()
                if program.image and is_loose(program.image.reference)
            ]
            assert not loose, f"release {name}: {', '.join(loose)}"
        assert all(map(is_loose, ("envoyproxy/envoy", "redis:latest"))), "a loose image was not noticed"


def entrances():
    """The entrances of those layers that have one."""
    parts = [part for layer in layers().values() for part in layer.parts]
    having = [part for part in parts if isinstance(part, Own) and ENTRANCE in part.paths]
    assert having, f"no layer has {ENTRANCE}"
    return [document for part in having for document in load(manifests_dir() / ENTRANCE, part.values)]


def images(part, kind=""):
    """Every image that a document names."""
    if isinstance(part, dict):
        kind = kind or part.get("kind", "")
        for name, value in part.items():
            if name == "image" and isinstance(value, str):
                yield kind, value
            else:
                yield from images(value, kind)
    elif isinstance(part, list):
        for one in part:
            yield from images(one, kind)


def is_loose(image):
    if "@sha256:" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest", "main", "master", "dev")
