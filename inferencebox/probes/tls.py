"""A TLS handshake as a probe: version, certificate (whose, by whom, for how long), and whether it is trusted.

SPIFFE: an X.509 identity is the one URI among the subject's alternative names (SPIFFE X509-SVID, section 2).
"""

import contextlib
import datetime as dt
import socket
import ssl
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

from inferencebox import evidence
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Transport

N = TypeVar("N", x509.DNSName, x509.UniformResourceIdentifier)

VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True)
class Handshake:
    """What a handshake showed; `error` and `detail` when it did not come about."""

    error: Transport | None = None
    detail: str = ""
    version: str | None = None
    cipher: str | None = None
    certificate: x509.Certificate | None = None
    trusted: bool | None = None
    """Whether chain and name verified against the authority given; None if none was given."""
    distrust: str = ""
    elapsed: float = 0.0
    status: int | None = None
    """Always None: a handshake has no HTTP status (`no_connection` asks)."""

    @property
    def names(self) -> list[str]:
        return self._names(x509.DNSName)

    @property
    def spiffe(self) -> str | None:
        uris = self._names(x509.UniformResourceIdentifier)
        return next((uri for uri in uris if uri.startswith("spiffe://")), None)

    @property
    def issuer(self) -> str | None:
        return self.certificate.issuer.rfc4514_string() if self.certificate else None

    @property
    def subject(self) -> str | None:
        """The common name."""
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if self.certificate else []
        return str(names[0].value) if names else None

    @property
    def serial(self) -> str | None:
        return f"{self.certificate.serial_number:x}" if self.certificate else None

    @property
    def lifetime(self) -> dt.timedelta | None:
        cert = self.certificate
        return cert.not_valid_after_utc - cert.not_valid_before_utc if cert else None

    @property
    def expires(self) -> dt.datetime | None:
        return self.certificate.not_valid_after_utc if self.certificate else None

    def _names(self, kind: type[N]) -> list[str]:
        if self.certificate is None:
            return []
        with contextlib.suppress(x509.ExtensionNotFound):
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return [str(name) for name in names.get_values_for_type(kind)]
        return []

    def __str__(self) -> str:
        if self.error:
            return f"no handshake: {self.error.value} ({self.detail})"
        trust = {None: "", True: ", trusted", False: f", not trusted: {self.distrust}"}[self.trusted]
        who = self.spiffe or ", ".join(self.names) or self.subject
        return f"{self.version} with {who}, serial {self.serial}, from {self.issuer}{trust}"


@dataclass(frozen=True)
class Tls:
    """Shakes hands once when called.

    Args:
        server_name: sent as SNI, and verified if `ca` is given.
        ca: authority to verify the certificate against.
        only: offer this TLS version alone (TLSv1 ... TLSv1.3).
        identity: certificate and key files of a client (mutual TLS).
        alpn: protocols to offer.
    """

    endpoint: Endpoint
    server_name: str | None = None
    ca: Path | None = None
    only: str | None = None
    identity: tuple[Path, Path] | None = None
    alpn: tuple[str, ...] = ()
    timeout: float = 5.0

    def __call__(self) -> Handshake:
        seen = self._shake(self._context(None))
        if self.ca and not seen.error:
            seen = _judged(seen, self._shake(self._context(self.ca)))
        evidence.exchange(
            {"name": "TLS handshake", "server": self.server_name}, {"summary": str(seen)}, self.as_openssl()
        )
        return seen

    def as_openssl(self) -> str:
        """What a person could type."""
        name = f" -servername {self.server_name}" if self.server_name else ""
        version = f" -{self.only.lower().replace('v', '').replace('.', '_')}" if self.only else ""
        authority = f" -CAfile {self.ca}" if self.ca else ""
        return (
            f"openssl s_client -connect {self.endpoint.host}:{self.endpoint.port}{name}{version}{authority} </dev/null"
        )

    def _context(self, ca: Path | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = bool(ca and self.server_name)
        context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
        if ca:
            context.load_verify_locations(ca)
        if self.identity:
            context.load_cert_chain(*self.identity)
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        if self.only:
            _offer_only(context, VERSIONS[self.only])
        return context

    def _shake(self, context: ssl.SSLContext) -> Handshake:
        started = time.monotonic()
        try:
            with socket.create_connection((self.endpoint.host, self.endpoint.port), self.timeout) as plain:
                return self._read(plain, context, started)
        except OSError as problem:
            return Handshake(_transport(problem), str(problem), elapsed=time.monotonic() - started)

    def _read(self, plain: socket.socket, context: ssl.SSLContext, started: float) -> Handshake:
        with context.wrap_socket(plain, server_hostname=self.server_name) as secure:
            der, cipher = secure.getpeercert(binary_form=True), secure.cipher()
            return Handshake(
                version=secure.version(),
                cipher=cipher[0] if cipher else None,
                certificate=x509.load_der_x509_certificate(der) if der else None,
                elapsed=time.monotonic() - started,
            )


def _judged(seen: Handshake, verified: Handshake) -> Handshake:
    """What was seen with the verdict of a second handshake that verifies. Only TLS itself can speak of trust: a second
    one that did not come about otherwise (no answer, no connection) is no handshake."""
    if verified.error not in (None, Transport.TLS):
        return verified
    return replace(seen, trusted=verified.error is None, distrust=verified.detail)


def _offer_only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """Offer one version, also an old one that OpenSSL hides by default (it must be the server that refuses it)."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version


def _transport(problem: OSError) -> Transport:
    if isinstance(problem, TimeoutError):
        return Transport.TIMEOUT
    if isinstance(problem, ssl.SSLError):
        return Transport.TLS
    if isinstance(problem, socket.gaierror):
        return Transport.DNS
    return Transport.RESET if isinstance(problem, ConnectionResetError | BrokenPipeError) else Transport.REFUSED
