"""Mutual TLS: every byte of tenant traffic is between workloads that proved who they are."""

import datetime as dt
import uuid
from functools import partial

from fixtures.network import enforces_network_policies
from fixtures.scenario import not_exercised, scenario
from fixtures.tenants import Tenant
from inferencebox import policies
from inferencebox.checks import (
    Check,
    answered,
    at_least,
    attribute,
    equals,
    every,
    matches,
    no_connection,
    refused,
    that,
    trusted,
)
from inferencebox.platform import Endpoint, Platform, Workload
from inferencebox.probes.http import Call, Transport
from inferencebox.probes.kubernetes import service_account
from inferencebox.probes.packets import Capture, Packets, without_loss
from inferencebox.probes.prometheus import Growth, Prometheus, Vector
from inferencebox.probes.tls import Handshake, Tls
from inferencebox.traffic import burst, stream
from inferencebox.waiting import Timeouts, confirm, eventually

TIER_2 = "istio-ingressgateway.istio-system.svc.cluster.local"
TIER_2_IDENTITY = "URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway"
PERMITTED_PLAIN = {"15017", "9443"}
"""Ports of admission webhooks: the API server, which calls them, is outside the mesh."""


def mesh_handshake(platform: Platform, pod: Workload) -> Handshake:
    """What a pod shows to whom shakes hands as a sidecar does.

    Into a cluster the way is a port-forward and a relay, whose slowness says nothing of the pod: what timed out, and
    nothing else, is asked again.
    """
    shake = Tls(platform.reach(pod.address, pod.port), ca=platform.mesh_ca, alpn=("istio",))
    return eventually(shake, that("a handshake in time", lambda seen: seen.error is not Transport.TIMEOUT))


def cut_off(platform: Platform) -> Check:
    """By the sidecar; or before it by a NetworkPolicy, where those are enforced."""
    return no_connection("reset", "refused") if enforces_network_policies(platform) else no_connection("reset")


def cut_off_by_its_sidecar(platform: Platform, pod: Workload, *plain: Call) -> None:
    """Somebody in the platform's network and in no pod, whom no NetworkPolicy holds up, gets no reply either."""
    confirm(mesh_handshake(platform, pod), trusted())
    for call in plain:
        confirm(call.beside(platform)(), no_connection("reset"))


@scenario("SEC-23", needs=("gateway", "mesh.mtls"), wants=("prometheus",), sabotage="mtls.plain-to-pods", seconds=8)
def test_all_tenant_traffic_is_mutual_tls_under_load(platform, tenants, gateway, story):
    """Under load, all that reaches a tenant's model came over mutual TLS, from a caller who proved who it is."""
    load = 60
    uncounted = platform.capabilities.get("prometheus", "not offered")
    counted = [] if uncounted else [(tenant, counted_by_sidecars(platform, tenant)) for tenant in tenants]
    for tenant in tenants:
        mark = f"load-{uuid.uuid4().hex[:8]}"
        status = gateway.get(f"/v1/models/{tenant.model.name}", tenant.token, headers=[("x-probe", mark)])
        inside = status.with_(endpoint=Endpoint("http", tenant.model.service, 80), host=tenant.model.service)
        with story.when(f"{load} requests come to {tenant}'s model through both tiers, and some from its own mesh"):
            window = burst(status, load, parallel=10)
            assert window.errors == 0, f"the load itself was not served: {window}"
            eventually(inside.within(platform, tenant.client), answered(200), streak=2)
        with story.then("the model received each of them"):
            arrived = [one for replica in tenant.model.replicas for one in replica.arrivals(probe=mark)]
            confirm(len(arrived), at_least(load + 2))
        with story.then("and each over mutual TLS, as the sidecar that ended it says: 100 %"):
            callers = [one["headers"].get("x-forwarded-client-cert", "plain text") for one in arrived]
            mutual = [caller for caller in callers if "URI=spiffe://cluster.local/ns/" in caller]
            story.note("mutual TLS", f"{len(mutual)} of {len(callers)} requests\n" + "\n".join(sorted(set(callers))))
            confirm(callers, every(matches("URI=spiffe://cluster.local/ns/")))
            confirm(sum(TIER_2_IDENTITY in caller for caller in callers), equals(load))
    for tenant, growth in counted:
        with story.then(f"Prometheus says the same of {tenant}'s sidecars: 100 % of what they counted"):
            eventually(growth, all_mutual(load + 2), within=Timeouts.current().metric, every=1)
    if uncounted:
        not_exercised(f"each request that a model received came over mutual TLS; what sidecars count: {uncounted}")


def counted_by_sidecars(platform: Platform, tenant: Tenant) -> Growth:
    """What the sidecars of a tenant's model count from now on."""
    mine = f'reporter="destination", namespace="{tenant}", app="{tenant.model.name}"'
    return Prometheus(platform.endpoint("prometheus")).growth(f"istio_requests_total{{{mine}}}")


def all_mutual(least: int) -> Check:
    """So many requests or more, and not one of them in plain text."""

    def holds(seen: Vector) -> bool:
        mutual = seen.by("connection_security_policy").get(("mutual_tls",), 0)
        return seen.total == mutual >= least

    return that(f"{least} or more, each over mutual TLS", holds)


@scenario("SEC-24", needs=("mesh.mtls", "workloads"), sabotage="mtls.permissive", seconds=4)
def test_a_pod_outside_the_mesh_gets_no_reply_from_a_tenant(platform, tenants, outsider, story):
    """A pod without a sidecar that dials a tenant's pod, or its Service, is cut off before any HTTP reply."""
    for tenant in tenants:
        models = {each["model"] for each in policies.models() if each["tenant"] == tenant.name}
        pods = [pod for pod in platform.workloads(tenant.name) if pod.app in models]
        with story.given(f"pods of each of {tenant}'s models: {', '.join(sorted(models))}"):
            confirm({pod.app for pod in pods}, equals(models))
        for pod in pods:
            path = f"/v1/models/{pod.app}"
            plain = Call("GET", Endpoint("http", pod.address, pod.port), path, token=tenant.token, timeout=5)
            with story.then(f"the outsider is cut off at {pod.namespace}/{pod.name}, even with the tenant's own token"):
                confirm(plain.within(platform, outsider)(), cut_off(platform))
            with story("by the sidecar too, which shows who does reach it its certificate and nothing else"):
                cut_off_by_its_sidecar(platform, pod, plain)
            service = f"{pod.app}.{pod.namespace}.svc.cluster.local"
            by_service = plain.with_(endpoint=Endpoint("http", service, 80), path="/v2/health/ready")
            with story.then("its Service answers a member of the mesh"):
                eventually(by_service.within(platform, tenant.client), answered(200))
            if not platform.capabilities.get("pods"):  # without kube-proxy only sidecars know the way to a Service
                with story.then("and cuts the outsider off as well"):
                    confirm(by_service.within(platform, outsider)(), no_connection("reset", "refused"))


def _weakenings(namespace: str) -> list[dict]:
    """Every kind of object that would make plain text possible, or let somebody in."""
    security, networking = "security.istio.io/v1", "networking.istio.io/v1"
    host = f"*.{namespace}.svc.cluster.local"
    wanted = [
        (security, "PeerAuthentication", {"mtls": {"mode": "PERMISSIVE"}}),
        (security, "PeerAuthentication", {"mtls": {"mode": "DISABLE"}}),
        (
            security,
            "PeerAuthentication",
            {"selector": {"matchLabels": {"app": "client"}}, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}},
        ),
        (networking, "DestinationRule", {"host": host, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}),
        (security, "AuthorizationPolicy", {"action": "ALLOW", "rules": [{}]}),
        (security, "RequestAuthentication", {"jwtRules": []}),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", {"configPatches": []}),
        (networking, "Sidecar", {"egress": [{"hosts": ["*/*"]}]}),
    ]
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": "weaker", "namespace": namespace}, "spec": spec}
        for version, kind, spec in wanted
    ]


@scenario(
    "SEC-25",
    needs=("mesh.mtls", "kubernetes.rbac"),
    sabotage=("mtls.permissive", "rbac.tenant-edits-policies"),
    seconds=6,
)
def test_nothing_weakens_mutual_tls_and_tenants_cannot(platform, tenants, outsider, kube, story):
    """No object of the platform weakens strict mutual TLS, and a tenant that tries to make one is refused."""
    with story.then("every rule on mutual TLS says strict"):
        weaker = [
            f"{_named(rule)} says {mode} on port {port or 'any'}"
            for rule in kube.list("peerauthentication").items
            for port, mode in _modes(rule)
            if mode not in ("STRICT", "UNSET") and port not in PERMITTED_PLAIN
        ]
        clear = [
            f"{_named(rule)} says DISABLE"
            for rule in kube.list("destinationrule").items
            if '"mode": "DISABLE"' in str(rule["spec"]).replace("'", '"')
        ]
        confirm(weaker + clear, equals([]))
    with story.then("and the sidecars act by it: plain text is cut off on every port, served or not"):
        members = [pod for each in tenants for pod in each.model.pods]
        confirm({pod.namespace for pod in members}, equals({each.name for each in tenants}))
        for pod in members:
            ports = (8080, 80, 8012, 9999)
            plain = [Call("GET", Endpoint("http", pod.address, port), "/", timeout=5) for port in ports]
            for call in plain:
                confirm(call.within(platform, outsider)(), cut_off(platform))
            cut_off_by_its_sidecar(platform, pod, *plain)

    for tenant in tenants:
        account = service_account(tenant.name, tenant.name)
        with story.given(f"{tenant}'s own account, which may look at what runs"):
            assert kube.acting_as(account).list("pods", tenant.name).ok, f"{tenant}'s account can do nothing at all"
        for document in _weakenings(tenant.name):
            what = f"{document['kind']} {document['spec']}"
            with story.then(f"it may not create {what}"):
                reply = kube.create_as(account, document)
                if reply.ok:
                    kube.delete(document["kind"], "weaker", tenant.name)
                confirm(reply, refused(403, by="rbac"))
            with story("which is well formed: an administrator could"):
                confirm(kube.create(document, dry_run=True), answered(201))
        with story.then("nor change or delete the rule that is there"):
            touched = {"metadata": {"labels": {"inference-in-a-box/touched-by": tenant.name}}}
            other = kube.acting_as(account)
            confirm(other.patch("peerauthentication", "default", tenant.name, touched), refused(403, by="rbac"))
            confirm(other.delete("peerauthentication", "no-such-rule", tenant.name), refused(403, by="rbac"))


def _named(rule: dict) -> str:
    metadata = rule["metadata"]
    return f"{rule['kind']} {metadata['namespace']}/{metadata['name']}"


def _modes(rule: dict) -> list[tuple[str, str]]:
    spec = rule.get("spec") or {}
    ports = [(port, each.get("mode", "UNSET")) for port, each in (spec.get("portLevelMtls") or {}).items()]
    return [("", (spec.get("mtls") or {}).get("mode", "UNSET")), *ports]


@scenario(
    "SEC-26", needs=("packets", "mesh.mtls"), sabotage=("tier-1-to-tier-2.plain", "mtls.plain-to-pods"), seconds=6
)
def test_nothing_can_be_read_on_the_wires_inside(platform, kube, tenant_a, gateway, outsider, story):
    """Whoever listens on the wires from tier 1 to tier 2 and on to the model cannot read the request."""
    secret, control = (f"canary{uuid.uuid4().hex}" for _ in range(2))
    pod = tenant_a.model.pods[0]
    tier_2 = platform.run_beside(["getent", "ahostsv4", TIER_2]).stdout.decode().split()[0]
    ask = gateway.call("POST", "/v1/models/sklearn-iris:predict", tenant_a.token, headers=[("x-probe", secret)])
    ask = ask.with_(json={"instances": [[5.1, 3.5, 1.4, 0.2]], "parameters": {"note": secret}})
    proxies = [each["status"]["podIP"] for each in kube.list("pods", "istio-system", "istio=ingressgateway").items]
    shout = Call("POST", Endpoint("http", tier_2, 80), f"/{control}", body=control.encode(), timeout=5)

    asked: list[str] = []

    def listened() -> Packets:
        """To the request, five times, and to the outsiders."""
        with Capture(platform, secret, control) as capture:
            asked.append(eventually(ask, answered(200), streak=5).request_id)
            shout.within(platform, outsider)()
            shout.with_(endpoint=Endpoint("http", pod.address, pod.port)).beside(platform)()
        return capture.observed

    with story.when(
        "a request that carries a secret word goes through both tiers to the model, and outsiders send another word in "
        "plain text to tier 2 and to the model's pod, until a capture has lost nothing of it"
    ):
        packets = without_loss(listened)
    with story.given("the capture sees these wires: the outsiders' word is there, at tier 2 and at the pod"):
        for address in (f"{tier_2}:80", f"{pod.address}:{pod.port}"):
            found = packets.found_to(control, address)
            assert found, f"the capture does not see what is sent to {address} in plain text: it proves nothing"
    with story.then("the client's own wire to tier 1 carried the secret word, in plain HTTP"):
        read = packets.found[secret]
        assert read, "the capture did not see the secret word where it is in plain text: it proves nothing"
        assert tenant_a.model.arrivals(request_id=asked[-1])() == 1
    with story.then("no wire to tier 2 or to the pod carried it, though tier 1 spoke to tier 2, and tier 2 to the pod"):
        inner = (tier_2, pod.address, *proxies)
        leaked = [flow for flow in read if any(f"{address}:" in flow for address in inner)]
        assert not leaked, f"the secret word was in plain text on the wire: {', '.join(leaked)}"
        for address in (f"{tier_2}:443", f"{pod.address}:{pod.port}"):
            spoken = sum(count for flow, count in packets.flows.items() if address in flow.split(">"))
            assert spoken >= 5, f"hardly a packet went to {address}: nothing is proved ({spoken})"


DAY = dt.timedelta(hours=24)
SHORT = 12
CLOCK_SKEW = dt.timedelta(minutes=2)
"""Istio dates certificates back by so much, for clocks that are late."""


@scenario("SEC-27", needs=("mesh.mtls", "workloads"), sabotage="mtls.long-lived-certificates", seconds=25)
def test_workload_certificates_name_the_workload_and_renew_themselves(
    platform, tenants, tenant_a, own_model, gateway, story
):
    """A workload's certificate names its account, lives a day at most, and is renewed without a failed request."""
    for tenant in tenants:
        for pod in tenant.model.pods:
            with story.then(f"{pod.namespace}/{pod.name} shows a certificate of its own"):
                identity = f"spiffe://cluster.local/ns/{pod.namespace}/sa/{pod.service_account}"
                shown = confirm(mesh_handshake(platform, pod), attribute("spiffe", equals(identity)) & trusted())
                left = shown.expires - dt.datetime.now(dt.UTC)
                assert left <= DAY, f"the certificate of {pod.name} is good for {left} more, wanted 24 h at most"
                assert shown.lifetime <= DAY + CLOCK_SKEW, f"the certificate of {pod.name} lives {shown.lifetime}"

    with story.given(f"a model whose one replica has certificates that live {SHORT} seconds"):
        model = own_model("tenant-a", {"v1": 1}, certificate_life=f"{SHORT}s")
        (replica,) = model.replicas
    pod, mark = replica.workload, f"renewed-{uuid.uuid4().hex[:8]}"
    ask = gateway.predict(model, tenant_a.token, headers=[("x-probe", mark)])
    shake = partial(mesh_handshake, platform, pod)
    first = shake()
    with stream(ask, rate=8) as requests:
        with story.when("its first certificate has run out"):
            expired = that(
                "a certificate after the first one", lambda seen: seen.expires and seen.expires > first.expires
            )
            renewed = eventually(shake, expired, within=2 * SHORT, every=0.5)
            assert renewed.serial != first.serial
            over = that("past the first one's end", lambda now: now > first.expires)
            eventually(lambda: dt.datetime.now(dt.UTC), over, within=2 * SHORT, every=0.5)
            later = confirm(shake(), trusted())
        with story.then("a newer one is there, by the same authority for the same identity"):
            assert (later.spiffe, later.issuer) == (first.spiffe, first.issuer)
            assert later.serial != first.serial, "the certificate was not renewed"
        requests.collect(8)
    with story.then("and no request failed, nor was any asked twice: this replica had each of them, once"):
        window = requests.window()
        assert window.errors == 0, f"requests failed while the certificate was renewed: {window}"
        confirm(window.by_pod, equals({pod.name: window.requests}))
        confirm(len(replica.arrivals(probe=mark)), equals(window.requests))
