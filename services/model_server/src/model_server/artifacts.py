"""A directory of trained models with a manifest: what was made, by which versions, with which checksums."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from model_server.running import SetupProblem

MANIFEST = "manifest.json"
IRIS = "iris.joblib"
DIGITS = "digits.onnx"
TEXT = "text.json"
VECTORS = "text-vectors.npz"
SCORE_OF = {"sklearn": "iris", "onnx": "digits"}
BY_KIND = {"sklearn": (IRIS,), "onnx": (DIGITS,), "text": (TEXT, VECTORS)}


def write_manifest(directory: Path, versions: Mapping[str, str], scores: Mapping[str, float]) -> None:
    names = [name for files in BY_KIND.values() for name in files]
    manifest = {
        "files": {name: {"sha256": _sha256(directory / name)} for name in names},
        "scores": scores,
        "versions": versions,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def verified(directory: Path, kind: str) -> tuple[Path, ...]:
    """The files of one kind, once their content is known to be what training wrote: unpickling trusts them."""
    remedy = f"run: model-server train --out {directory}"
    try:
        files = json.loads((directory / MANIFEST).read_text())["files"]
        for name in BY_KIND[kind]:
            if _sha256(directory / name) != files[name]["sha256"]:
                raise SetupProblem(f"{directory / name} is not what {MANIFEST} says it is; {remedy}")
    except OSError as error:
        raise SetupProblem(f"cannot read {error.filename}: {error.strerror}; {remedy}") from None
    except (ValueError, KeyError, TypeError):
        raise SetupProblem(f"{directory / MANIFEST} is broken; {remedy}") from None
    return tuple(directory / name for name in BY_KIND[kind])


def accuracy(directory: Path, kind: str) -> float | None:
    """What training measured: the share of right answers (digits: on data kept aside). Texts have none."""
    scores: dict[str, float] = json.loads((directory / MANIFEST).read_text()).get("scores", {})
    return scores.get(SCORE_OF.get(kind, ""))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
