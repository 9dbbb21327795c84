"""A handshake tells version, identity and trust, and why it did not come about."""

import datetime as dt
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from loopback import closed_port, reply, serving

from inferencebox.checks import no_connection
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call, Transport
from inferencebox.probes.tls import Tls

SPIFFE = "spiffe://cluster.local/ns/tenant-a/sa/iris"
NAMES = [x509.DNSName("api.example"), x509.UniformResourceIdentifier(SPIFFE)]


@dataclass
class Identity:
    certificate: Path
    key: Path
    serial: int

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def made(folder: Path, name: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=23))
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    identity = Identity(folder / f"{name}.crt", folder / f"{name}.key", certificate.serial_number)
    identity.certificate.write_bytes(certificate.public_bytes(pem))
    identity.key.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return identity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def iris(folder: Path) -> Identity:
    return made(folder, "iris")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Identity:
    return made(folder, "stranger")


def test_the_certificate_is_told(iris: Identity) -> None:
    with serving(reply(), iris.context()) as server:
        seen = Tls(server.endpoint)()
    assert (seen.version, seen.names, seen.spiffe, seen.subject) == ("TLSv1.3", ["api.example"], SPIFFE, "iris")
    assert (seen.issuer, seen.serial, seen.lifetime) == ("CN=iris", f"{iris.serial:x}", dt.timedelta(hours=24))
    assert seen.trusted is None
    assert SPIFFE in str(seen)


def test_trust_depends_on_authority_and_name(iris: Identity, stranger: Identity) -> None:
    with serving(reply(), iris.context()) as server:
        right = Tls(server.endpoint, "api.example", iris.certificate)()
        name = Tls(server.endpoint, "other.example", iris.certificate)()
        authority = Tls(server.endpoint, "api.example", stranger.certificate)()
    assert [seen.trusted for seen in (right, name, authority)] == [True, False, False]
    assert "other.example" in name.distrust
    assert name.names == ["api.example"]


def test_a_second_handshake_that_nobody_answers_is_no_distrust(iris: Identity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = Tls(Endpoint("https", *listener.getsockname()), "api.example", iris.certificate, timeout=0.5)
        with ThreadPoolExecutor() as pool:
            seen = pool.submit(probe)
            with iris.context().wrap_socket(listener.accept()[0], server_side=True):
                pass
            assert seen.result().error is Transport.TIMEOUT
    assert seen.result().trusted is None


def test_one_version_alone_can_be_offered(iris: Identity) -> None:
    context = iris.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with serving(reply(), context) as server:
        assert Tls(server.endpoint, only="TLSv1.2")().version == "TLSv1.2"
        old = Tls(server.endpoint, only="TLSv1.1")
        assert no_connection("tls")(old()) is None
        assert "-tls1_1" in old.as_openssl()


def test_a_client_certificate_is_shown_when_given(iris: Identity, stranger: Identity) -> None:
    context = iris.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(stranger.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(reply(), context) as server:
        assert Tls(server.endpoint)().error is not None
        assert Tls(server.endpoint, identity=(stranger.certificate, stranger.key))().error is None


def test_nobody_there_and_no_tls_are_told_apart() -> None:
    assert Tls(closed_port())().error is Transport.REFUSED
    with serving(reply()) as server:
        assert Tls(server.endpoint)().error is Transport.TLS


def test_https_calls_verify_authority_and_name(iris: Identity, stranger: Identity) -> None:
    with serving(reply(), iris.context()) as server:
        call = Call("GET", server.endpoint, "/")
        assert call().error is Transport.TLS
        assert call.with_(insecure=True)().status == 200
        assert call.with_(ca=iris.certificate, sni="api.example")().status == 200
        assert call.with_(ca=iris.certificate, sni="other.example")().error is Transport.TLS
        assert call.with_(ca=stranger.certificate, sni="api.example")().error is Transport.TLS
