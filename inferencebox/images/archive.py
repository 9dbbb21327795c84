"""An image as one file that engines load: the format of ``docker save``."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferencebox.images.tree import Tree, member
from inferencebox.programs.registry import ARCHITECTURES

EPOCH = "1970-01-01T00:00:00Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ASSEMBLED = "inferencebox.assembled"
"""Label of images that were put together here and not by their vendor."""


def assemble(target: Path, reference: str, layers: Sequence[Tree], config: Mapping[str, Any]) -> None:
    """Write an image.

    Args:
        target: the archive; its folder is also where layers are put together.
        reference: its name in the engine.
        layers: lowest first.
        config: Entrypoint, Cmd, Env, User, WorkingDir, as an image's configuration has them.
    """
    files = [target.with_name(f"layer-{number}.tar") for number in range(len(layers))]
    digests = [layer.save(file) for layer, file in zip(layers, files, strict=True)]
    pack(target, reference, describe(digests, config), files)
    for file in files:
        file.unlink()


def describe(digests: Sequence[str], config: Mapping[str, Any]) -> bytes:
    """An image's configuration: what runs in it, and the sha256 of its layers."""
    description = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": EPOCH,
        "config": {
            **{key: value for key, value in config.items() if value},
            "Env": [PATH, *config.get("Env", [])],
            "Labels": {ASSEMBLED: "true"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": EPOCH, "created_by": "ibox build"} for _ in digests],
    }
    return json.dumps(description, sort_keys=True).encode()


def pack(target: Path, reference: str, config: bytes, layers: Sequence[Path]) -> None:
    """Write an archive out of an image's configuration and its layers, compressed or not."""
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"layer-{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": names}]
    with tarfile.open(target, "w") as archive:
        _text(archive, config_name, config)
        _text(archive, "manifest.json", json.dumps(manifest).encode())
        for name, layer in zip(names, layers, strict=True):
            with layer.open("rb") as content:
                archive.addfile(member(name, 0o644, layer.stat().st_size), content)


def _text(archive: tarfile.TarFile, name: str, text: bytes) -> None:
    archive.addfile(member(name, 0o644, len(text)), io.BytesIO(text))
