"""Certificates: what is in them, and that an authority survives being written down."""

import datetime as dt
import stat
from pathlib import Path

from cryptography import x509

from inferencebox.pki import Authority


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_names_addresses_and_identities_are_in_the_certificate() -> None:
    issued = Authority.create("test").issue(
        "me", hosts=["a.example", "10.0.0.1"], uris=["spiffe://cluster.local/ns/a/sa/b"]
    )
    names = read(issued.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local/ns/a/sa/b"]


def test_a_certificate_lives_as_long_as_asked() -> None:
    issued = read(Authority.create("test").issue("me", life=dt.timedelta(minutes=5)).certificate)
    assert issued.not_valid_after_utc - dt.datetime.now(dt.UTC) <= dt.timedelta(minutes=5)


def test_an_authority_that_was_written_down_signs_as_before() -> None:
    first = Authority.create("test")
    again = Authority.load(first.pair.certificate, first.pair.key)
    read(again.issue("me").certificate).verify_directly_issued_by(read(first.pair.certificate))


def test_a_private_key_is_for_its_owner_only(tmp_path: Path) -> None:
    Authority.create("test").pair.write(tmp_path)
    assert stat.S_IMODE((tmp_path / "tls.key").stat().st_mode) == 0o600
