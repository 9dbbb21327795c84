"""Certificates in Secrets, by somebody whom nobody knows.

Where cert-manager keeps a Secret it puts the right certificate back within seconds: the annotation on the Secret says
which Certificate it is kept by (cert-manager.io/docs/reference/annotations). That one then gets somebody else as its
issuer, so that cert-manager itself issues what is wrong, and what is right when the issuer is the old one again.
"""

import base64
from collections.abc import Sequence
from typing import Any

from inferencebox.pki import Authority, Certificate
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube

from .documents import Document
from .effects import NoEffect
from .remembered import Memory

KEPT_BY = "cert-manager.io/certificate-name"
CERTIFICATE = "Certificate.cert-manager.io"
NAME = "sabotage"
ISSUED_SECONDS = 60.0


def replace_certificate(kube: Kube, memory: Memory, namespace: str, name: str, hosts: Sequence[str]) -> None:
    """Have a TLS Secret hold a certificate that somebody else signed, and no other until the memory is undone.

    Args:
        hosts: names for which it is, where it is put there by hand.

    Raises:
        NoEffect: cert-manager issued nothing.
    """
    secret = kube.get("Secret", name, namespace).require()
    keeper = (secret["metadata"].get("annotations") or {}).get(KEPT_BY)
    stranger = Authority.create("somebody else")
    if keeper is None:
        memory.note("changed", secret)
        kube.replace({**secret, "data": {**secret["data"], **_data(stranger.issue("gateway", hosts=hosts))}}).require()
        return
    for document in _issuer(stranger, namespace):
        memory.note("created", document)
        kube.apply(document)[0].require()
    certificate = kube.get(CERTIFICATE, keeper, namespace).require()
    memory.note("changed", certificate)
    issuer = {"issuerRef": {"kind": "Issuer", "name": NAME}}
    kube.replace({**certificate, "spec": {**certificate["spec"], **issuer}}).require()

    def shown() -> Any:
        return kube.get("Secret", name, namespace).require()["data"]["tls.crt"]

    if not poll(lambda: shown() != secret["data"]["tls.crt"], ISSUED_SECONDS, every=0.5):
        raise NoEffect(f"cert-manager issued nothing for {name} in {ISSUED_SECONDS:.0f} s")


def _issuer(authority: Authority, namespace: str) -> list[Document]:
    """By whom cert-manager can issue in the name of an authority."""
    metadata = {"name": NAME, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": _data(authority.pair),
        },
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": metadata,
            "spec": {"ca": {"secretName": NAME}},
        },
    ]


def _data(pair: Certificate) -> dict[str, str]:
    """As a TLS Secret has it."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    return {name: base64.b64encode(value).decode() for name, value in data.items()}
