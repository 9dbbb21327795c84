"""Certificates of the entrance."""

import base64
import datetime as dt
from collections.abc import Iterator

import pytest

from fixtures.scenario import not_exercised, scenario
from inferencebox.checks import answered, attribute, contains, equals, no_connection, served_by, that, trusted
from inferencebox.pki import Authority
from inferencebox.probes.kubernetes import Kube
from inferencebox.probes.tls import Tls
from inferencebox.traffic import stream
from inferencebox.waiting import confirm, eventually

SECRET, NAMESPACE = "ai-gateway-tls", "ai-gateway"
HOSTS = ("localhost", "tenant-a.inference-in-a-box", "api.router.inference-in-a-box")
RENEWED_WITHIN = 120


@scenario("SEC-28", needs=("gateway.tls",), sabotage=("tls.old-versions", "tls.foreign-certificate"), seconds=2)
def test_the_entrance_speaks_current_tls_with_a_certificate_of_its_name(platform, secure_gateway, tenant_a, story):
    """Port 443 speaks TLS 1.2 and 1.3 and nothing older, with a valid certificate for the platform's names."""
    shake = Tls(secure_gateway.endpoint, "localhost", ca=platform.edge_ca)
    for version in ("TLSv1.2", "TLSv1.3"):
        with story.then(f"{version} is spoken"):
            only = Tls(secure_gateway.endpoint, "localhost", ca=platform.edge_ca, only=version)
            eventually(only, attribute("version", equals(version)) & trusted())
    for version in ("TLSv1", "TLSv1.1"):
        with story.then(f"{version} is refused"):
            old = Tls(secure_gateway.endpoint, "localhost", only=version)
            confirm(old(), no_connection("tls") & _refused_by_the_server)
    with story.then("the certificate is valid for the platform's names, now, by the platform's authority"):
        for name in HOSTS:
            named = Tls(secure_gateway.endpoint, name, ca=platform.edge_ca)
            confirm(named(), trusted())
        seen = confirm(shake(), attribute("names", contains("localhost") & contains("*.inference-in-a-box")))
        confirm(seen, attribute("expires", that("a moment to come", lambda end: end > dt.datetime.now(dt.UTC))))
    with story.then("and for no others"):
        stranger = Tls(secure_gateway.endpoint, "platform.example", ca=platform.edge_ca)
        confirm(stranger(), ~trusted())
    with story.then("and the models answer there"):
        ask = secure_gateway.predict(tenant_a.model, tenant_a.token, ca=platform.edge_ca)
        eventually(ask, answered(200) & served_by(tenant_a.model))


_refused_by_the_server = attribute(
    "detail", that("the server's refusal of the version", lambda said: "alert protocol version" in said.lower())
)


@pytest.fixture
def edge_secret(kube: Kube) -> Iterator[dict[str, str]]:
    """The Secret with the entrance's certificate; it has its old contents again afterwards."""
    before = kube.get("secret", SECRET, NAMESPACE).require()["data"]
    yield before
    kube.patch("secret", SECRET, NAMESPACE, {"data": before}).require()


@scenario("SEC-29", needs=("gateway.tls",), sabotage="tls.foreign-certificate", exclusive=True, seconds=6)
@pytest.mark.parametrize("renewed", ["by hand", "unaided"])
def test_a_renewed_certificate_of_the_entrance_is_shown_without_interruption(
    renewed, platform, kube, secure_gateway, tenant_a, edge_secret, tmp_path, story
):
    """A renewed certificate of the entrance is shown within two minutes, and no request fails meanwhile."""
    if renewed == "unaided" and (why := platform.capabilities.get("cert-manager", "no cert-manager here")):
        not_exercised(why)
    authority = Authority.create("inferencebox edge, renewed")
    both = tmp_path / "authorities.crt"
    both.write_bytes(platform.edge_ca.read_bytes() + authority.pair.certificate)
    ask = secure_gateway.predict(tenant_a.model, tenant_a.token, ca=both, fresh=True)
    with story.given("the entrance's certificate"):
        first = confirm(Tls(secure_gateway.endpoint, "localhost", platform.edge_ca)(), trusted())
        eventually(ask, answered(200))
    with stream(ask, rate=8) as requests:
        requests.collect(4)
        with story.when(f"it is renewed {renewed}, while requests go on over new connections"):
            if renewed == "by hand":
                _renew(kube, authority)
            else:
                _let_it_renew(kube)
        with story.then(f"within {RENEWED_WITHIN} seconds a newer one is shown"):
            other = that("another serial number", lambda serial: serial not in (None, first.serial))
            shake = Tls(secure_gateway.endpoint, "localhost", both)
            wish = attribute("serial", other) & trusted()
            eventually(shake, wish, streak=3, within=RENEWED_WITHIN)
        with story.then("and no request failed"):
            requests.collect(8)
            window = requests.window()
            assert window.errors == 0, f"requests failed while the certificate was renewed: {window}"
    if renewed == "by hand":
        _back_to(edge_secret, kube, shake, first.serial)


def _renew(kube: Kube, authority: Authority) -> None:
    pair = authority.issue("gateway", hosts=["localhost", "*.inference-in-a-box"])
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    encoded = {name: base64.b64encode(pem).decode() for name, pem in data.items()}
    kube.patch("secret", SECRET, NAMESPACE, {"data": encoded}).require()


def _let_it_renew(kube: Kube) -> None:
    """cert-manager renews a certificate of one hour that is to be renewed 59 minutes before its end."""
    spec = {"duration": "1h", "renewBefore": "59m"}
    kube.patch("certificate.cert-manager.io", SECRET, NAMESPACE, {"spec": spec}).require()


def _back_to(before: dict[str, str], kube: Kube, shake: Tls, serial: str) -> None:
    """Others are waiting for the entrance as it was."""
    kube.patch("secret", SECRET, NAMESPACE, {"data": before}).require()
    eventually(shake, attribute("serial", equals(serial)), streak=3)
