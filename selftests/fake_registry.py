"""An OCI registry on loopback, and images made of dictionaries."""

import hashlib
import io
import json
import platform
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inferencebox.programs.registry import ARCHITECTURES

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

CONFIG = "application/vnd.oci.image.config.v1+json"

Content = bytes | tarfile.TarInfo


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A link inside a layer; its name is filled in by ``layer``."""
    member = tarfile.TarInfo()
    member.type = kind
    member.linkname = target
    return member


def layer(files: Mapping[str, Content]) -> bytes:
    """A gzipped layer."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo()
            member.name = name
            if isinstance(content, bytes):
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return packed.getvalue()


class Registry:
    """What it has by digest or by tag, what it was asked, and how it may misbehave."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[str] = []
        self.refuse = ""
        self.wants_token = False
        self.port = 0

    def add(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def add_image(self, layers: Sequence[bytes]) -> str:
        """An image of these layers; the digest of its manifest."""
        described = [{"mediaType": LAYER, "digest": self.add(one), "size": len(one)} for one in layers]
        config = {"mediaType": CONFIG, "digest": self.add(b'{"os": "linux"}'), "size": 15}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        return self.add(json.dumps(manifest).encode())

    def add_index(self, manifest: str, architecture: str | None = None) -> str:
        """An index with an image for this machine, behind one for another; the index's digest."""
        ours = architecture or ARCHITECTURES.get(platform.machine(), platform.machine())
        entries = [
            {"digest": f"sha256:{'1' * 64}", "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": manifest, "platform": {"os": "linux", "architecture": ours}},
        ]
        return self.add(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())

    @property
    def challenge(self) -> str:
        """Where a token is to be had, for everybody, as of public registries."""
        return f'Bearer realm="http://127.0.0.1:{self.port}/token",service="r",scope="repository:a/tool:pull"'

    def answer(self, path: str, token: str = "") -> tuple[int, bytes]:
        self.asked.append(path)
        if path.startswith("/token?"):
            return 200, b'{"token": "anybody"}'
        if self.wants_token and token != "Bearer anybody":
            return 401, b"{}"
        if self.refuse and self.refuse in path:
            return 403, b"{}"
        if path == "/v2/":
            return 200, b"{}"
        version = path.rpartition("/")[2]
        content = self.blobs.get(self.tags.get(version, version))
        return (200, content) if content is not None else (404, b"{}")


@contextmanager
def serving() -> Iterator[Registry]:
    """A registry that answers on a free port of loopback."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(self.head())

        def do_HEAD(self) -> None:
            self.head()

        def head(self) -> bytes:
            status, content = registry.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            if status == 401:
                self.send_header("Www-Authenticate", registry.challenge)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
