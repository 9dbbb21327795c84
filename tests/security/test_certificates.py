"""Certificates of the entrance."""

import base64
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fixtures.gateway import Gateway
from fixtures.scenario import not_exercised, scenario
from fixtures.turns import Alone
from inferencebox.checks import Check, answered, attribute, contains, equals, no_connection, served_by, that, trusted
from inferencebox.pki import Authority
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube
from inferencebox.probes.tls import Handshake, Tls
from inferencebox.traffic import stream
from inferencebox.waiting import confirm, eventually

NAME, NAMESPACE = "ai-gateway-tls", "ai-gateway"
"""Of the Secret, and where cert-manager keeps it, of the Certificate."""
CERTIFICATE = "certificate.cert-manager.io"
HOUR = dt.timedelta(hours=1)
SHORT = {"duration": "1h", "renewBefore": "59m"}
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


@dataclass(frozen=True)
class ByHand:
    """An administrator puts a certificate of another authority in place, and in the end the old one again."""

    kube: Kube
    authority: Authority
    before: dict[str, str]

    def prepare(self, shake: Tls) -> None:
        """Nothing: it can be renewed at any moment."""

    def begin(self) -> None:
        pair = self.authority.issue("gateway", hosts=["localhost", "*.inference-in-a-box"])
        data = {"tls.crt": pair.certificate, "tls.key": pair.key}
        self._put({name: base64.b64encode(pem).decode() for name, pem in data.items()})

    def end(self, shake: Tls, first: Handshake) -> None:
        """Others want the entrance as it was, with a certificate of the platform's authority: the old one, or another
        that cert-manager issues for a Secret that somebody has changed."""
        self._put(self.before)
        eventually(shake, trusted(), streak=3)

    def _put(self, data: dict[str, str]) -> None:
        self.kube.patch("secret", NAME, NAMESPACE, {"data": data}).require()


@dataclass(frozen=True)
class Unaided:
    """cert-manager renews a certificate of one hour, a minute after it has issued it; nobody does anything. Others may
    be there: all of these are of the platform's authority."""

    kube: Kube
    before: dict[str, str]

    def prepare(self, shake: Tls) -> None:
        first = shake()
        self._wish(SHORT)  # with this it issues another at once: that is not the renewal
        eventually(shake, another_than(first) & lives(HOUR), streak=3, within=RENEWED_WITHIN)

    def begin(self) -> None:
        """It comes by itself."""

    def end(self, shake: Tls, first: Handshake) -> None:
        self._wish(self.before)
        eventually(shake, trusted() & ~lives(HOUR), streak=3)

    def _wish(self, spec: dict[str, str]) -> None:
        self.kube.patch(CERTIFICATE, NAME, NAMESPACE, {"spec": spec}).require()


@pytest.fixture
def authority() -> Authority:
    """Another authority, which the test trusts."""
    return Authority.create("inferencebox edge, renewed")


@pytest.fixture(params=["unaided", "by hand"])
def renewal(
    request: pytest.FixtureRequest,
    platform: Platform,
    secure_gateway: Gateway,
    kube: Kube,
    authority: Authority,
    alone: Alone,
) -> Iterator[ByHand | Unaided]:
    """How the entrance's certificate is renewed; afterwards it is as it was."""
    shake = Tls(secure_gateway.endpoint, "localhost", platform.edge_ca)
    if request.param == "by hand":
        alone()  # others do not trust that authority
        way: ByHand | Unaided = ByHand(kube, authority, kube.get("secret", NAME, NAMESPACE).require()["data"])
    elif why := platform.capabilities.get("cert-manager", "no cert-manager here"):
        not_exercised(why)
    else:
        spec = kube.get(CERTIFICATE, NAME, NAMESPACE).require()["spec"]
        way = Unaided(kube, {name: spec[name] for name in SHORT})
    first = shake()
    yield way
    way.end(shake, first)


@scenario(
    "SEC-29",
    needs=("gateway.tls",),
    sabotage=("tls.foreign-certificate", "gateway.frozen"),
    seconds=70,
)
def test_a_renewed_certificate_of_the_entrance_is_shown_without_interruption(
    renewal, platform, secure_gateway, tenant_a, authority, tmp_path, story
):
    """A renewed certificate of the entrance is shown within two minutes, and no request fails meanwhile."""
    both = tmp_path / "authorities.crt"
    both.write_bytes(platform.edge_ca.read_bytes() + authority.pair.certificate)
    ask = secure_gateway.predict(tenant_a.model, tenant_a.token, ca=both, fresh=True)
    shake = Tls(secure_gateway.endpoint, "localhost", both)
    with story.given("the entrance's certificate"):
        confirm(Tls(secure_gateway.endpoint, "localhost", platform.edge_ca)(), trusted())
        renewal.prepare(shake)
        first = confirm(shake(), trusted())
        eventually(ask, answered(200))
    with stream(ask, rate=8) as requests:
        requests.collect(4)
        with story.when("it is renewed, while requests go on over new connections"):
            renewal.begin()
        with story.then(f"within {RENEWED_WITHIN} seconds a newer one is shown"):
            eventually(shake, another_than(first) & trusted(), streak=3, within=RENEWED_WITHIN)
        with story.then("and no request failed"):
            requests.collect(8)
            window = requests.window()
            assert window.errors == 0, f"requests failed while the certificate was renewed: {window}"


def another_than(first: Handshake) -> Check:
    other = that("another serial number", lambda serial: serial not in (None, first.serial))
    return attribute("serial", other)


def lives(life: dt.timedelta) -> Check:
    return attribute("lifetime", equals(life))
