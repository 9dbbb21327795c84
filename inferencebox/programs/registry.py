"""Reads images from a registry over its HTTP API, by digest, without Docker."""

import functools
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from inferencebox.errors import SetupProblem
from inferencebox.programs.errors import Unavailable

MIRROR_VARIABLE = "IBOX_REGISTRY"
PROBE_SECONDS = 2.0
TRANSFER_SECONDS = 60
CHUNK = 1 << 20
API_HOSTS = {"docker.io": "registry-1.docker.io"}
LOOPBACK = ("localhost", "127.", "[::1]")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
FIX = f"set {MIRROR_VARIABLE} to a registry (host:port) that has the image and is in reach"


def split_reference(reference: str) -> tuple[str, str]:
    """Host and repository of ``host/repository:tag``; the tag is for people, pulls go by digest."""
    host, _, repository = reference.partition("/")
    return os.environ.get(MIRROR_VARIABLE) or API_HOSTS.get(host, host), repository.rpartition(":")[0] or repository


def tag_of(reference: str) -> str:
    """The tag of ``host/repository:tag``."""
    tag = reference.rpartition(":")[2]
    return "latest" if "/" in tag else tag


@functools.cache
def probe(host: str) -> str | None:
    """Ask a registry once whether it answers us; None, or why it is of no use. A refusal is final."""
    try:
        status = httpx.get(f"{_scheme(host)}://{host}/v2/", timeout=PROBE_SECONDS).status_code
    except httpx.HTTPError as error:
        return f"registry {host} is not in reach ({error or type(error).__name__})"
    return None if status in (200, 401) else f"registry {host} answers {status}"


class Repository:
    """Where a registry has the versions of one image.

    Args:
        reference: ``host/repository:tag``.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        host, repository = split_reference(reference)
        why = probe(host)
        if why:
            raise Unavailable(why, FIX)
        import oras.container  # takes a third of a second, and most runs need no registry
        import oras.provider

        self._container = oras.container.Container(f"{host}/{repository}")
        self._registry = oras.provider.Registry(hostname=host, insecure=_scheme(host) == "http")
        session = self._registry.session
        session.request = functools.partial(session.request, timeout=TRANSFER_SECONDS)
        session.hooks["response"].append(_refusals_are_final)

    def manifest(self, version: str) -> bytes:
        """The manifest of a version (a tag or a digest), or the index over all architectures."""
        return bytes(self._asked_for(version, "GET").content)

    def require(self, version: str) -> None:
        """Ask whether there is such a version, and we may have it; nothing is fetched.

        Raises:
            Unavailable: why not.
        """
        self._asked_for(version, "HEAD")

    def blob(self, digest: str, stream: bool = False) -> Any:
        """The response with one blob's content."""
        return self._send(self._container.get_blob_url(digest), {}, stream=stream)

    def _asked_for(self, version: str, method: str) -> Any:
        return self._send(self._container.manifest_url(version), {"Accept": ", ".join(MEDIA_TYPES)}, method)

    def _send(self, url: str, headers: Mapping[str, str], method: str = "GET", stream: bool = False) -> Any:
        try:
            response = self._registry.do_request(
                f"{self._registry.prefix}://{url}", method, headers=dict(headers), stream=stream
            )
        except Exception as error:  # oras raises whatever its transport and its authentication raise
            raise Unavailable(f"{self._reference} cannot be pulled ({error})", FIX) from error
        if response.status_code != httpx.codes.OK:
            raise Unavailable(f"{self._reference} cannot be pulled (status {response.status_code})", FIX)
        return response


def digest_of(reference: str) -> str:
    """The digest of what a registry has under a reference's tag now.

    Raises:
        Unavailable: why it can't be told.
    """
    return f"sha256:{hashlib.sha256(Repository(reference).manifest(tag_of(reference))).hexdigest()}"


@functools.cache
def why_not(reference: str, digest: str | None = None) -> str | None:
    """Ask once whether an image can be pulled; None, or why not.

    Args:
        digest: of the version that is meant; none for the tag's.
    """
    try:
        Repository(reference).require(digest or tag_of(reference))
    except Unavailable as why:
        return why.reason
    return None


class Image:
    """One image of a registry.

    Args:
        reference: ``host/repository:tag``.
        digest: of its manifest, or of the index over all architectures.
    """

    def __init__(self, reference: str, digest: str) -> None:
        self._reference = reference
        self._digest = digest
        self._repository = Repository(reference)

    def layers(self) -> list[Mapping[str, Any]]:
        """Descriptors of the layers for this machine, lowest first."""
        return list(self._for_us["layers"])

    def configuration(self) -> bytes:
        """The image's configuration for this machine, digest compared."""
        digest = self._for_us["config"]["digest"]
        content = bytes(self._repository.blob(digest).content)
        self._require(digest, hashlib.sha256(content).hexdigest())
        return content

    @functools.cached_property
    def _for_us(self) -> dict[str, Any]:
        manifest = self._manifest(self._digest)
        if "manifests" in manifest:
            manifest = self._manifest(self._for_this_machine(manifest["manifests"]))
        return manifest

    def download(self, layer: Mapping[str, Any], target: Path) -> Path:
        """Fetch one layer and compare its digest."""
        digest = hashlib.sha256()
        response = self._repository.blob(layer["digest"], stream=True)
        with response, target.open("wb") as file:
            for chunk in response.iter_content(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        self._require(layer["digest"], digest.hexdigest())
        return target

    def _manifest(self, digest: str) -> dict[str, Any]:
        content = self._repository.manifest(digest)
        self._require(digest, hashlib.sha256(content).hexdigest())
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def _for_this_machine(self, manifests: list[dict[str, Any]]) -> str:
        architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
        for entry in manifests:
            if entry.get("platform", {}).get("os") == "linux" and entry["platform"]["architecture"] == architecture:
                return str(entry["digest"])
        raise Unavailable(f"{self._reference} has nothing for linux/{architecture}", FIX)

    def _require(self, expected: str, actual: str) -> None:
        if expected != f"sha256:{actual}":
            raise SetupProblem(
                f"the registry sent something else than {self._reference} {expected}",
                "do not use that registry; compare with the vendor's digest",
            )


def _scheme(host: str) -> str:
    """Plain HTTP is for registries on this machine only."""
    return "http" if host.startswith(LOOPBACK) else "https"


def _refusals_are_final(response: Any, *args: Any, **kwargs: Any) -> None:
    """End oras' retries at once: asking again after a 403 is of no use."""
    from oras.auth import AuthenticationException

    if response.status_code == httpx.codes.FORBIDDEN:
        raise AuthenticationException("refused with 403")
