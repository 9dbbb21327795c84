"""Makes the models from data that comes with scikit-learn: a few seconds, no network, the same result each time."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

import joblib
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model_server.artifacts import DIGITS, IRIS, TEXT, VECTORS, write_manifest
from model_server.running import SetupProblem
from model_server.text_model import HASH_BUCKETS, Vector, Vectoriser, hashed

SEED = 20250601
TOPICS = 64
SENTENCE_WORDS = range(6, 60)
PIECE_LENGTHS = range(2, 7)


def train(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        scores = {"iris": _train_iris(out / IRIS), "digits": _train_digits(out / DIGITS)}
        _train_text(out / TEXT, out / VECTORS)
        packages = ("kserve", "numpy", "onnxruntime", "scikit-learn", "skl2onnx")
        write_manifest(out, {name: metadata.version(name) for name in packages}, scores)
    except OSError as error:
        raise SetupProblem(f"cannot write models to {out}: {error.strerror}") from None


def _train_iris(file: Path) -> float:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000, random_state=SEED).fit(x, y)
    joblib.dump(model, file)
    return round(float(model.score(x, y)), 4)


def _train_digits(file: Path) -> float:
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x.astype(np.float32), y, random_state=SEED, stratify=y)
    network = MLPClassifier((48,), max_iter=80, early_stopping=True, random_state=SEED)
    model = make_pipeline(StandardScaler(), network).fit(x_train, y_train)
    onnx = to_onnx(model, x_train[:1], options={"zipmap": False}, name="digits")
    onnx.opset_import.sort(key=lambda opset: opset.domain)  # they come out of a set
    file.write_bytes(onnx.SerializeToString(deterministic=True))
    return round(float(model.score(x_test, y_test)), 4)


def _train_text(text_file: Path, vector_file: Path) -> None:
    sentences = _sentences()
    pieces = _pieces(sentences)
    weights = np.stack([hashed(sentence) for sentence in sentences])
    found = np.count_nonzero(weights, axis=0)
    idf = np.log((1 + len(sentences)) / (1 + found)).astype(np.float32)
    _, _, directions = np.linalg.svd(weights * idf, full_matrices=False)
    components = directions[:TOPICS].astype(np.float32)
    assert components.shape == (TOPICS, HASH_BUCKETS)
    vectoriser = Vectoriser(idf, components)
    index: Vector = np.stack([vectoriser.embed(sentence) for sentence in sentences])
    text_file.write_text(json.dumps({"pieces": pieces, "sentences": sentences}, ensure_ascii=False))
    np.savez(vector_file, idf=idf, components=components, index=index)


def _sentences() -> list[str]:
    """What scikit-learn says about its data sets, without markup and tables."""
    pages = [
        page.read_text() for page in resources.files("sklearn.datasets.descr").iterdir() if page.name[-4:] == ".rst"
    ]
    found = dict.fromkeys(
        sentence
        for page in sorted(pages)
        for paragraph in re.split(r"\n\s*\n", page)
        if not re.search(r"[=|]{3}|::|\.\. |>>>|:[\w ]+:|^ *[-*] ", paragraph, re.MULTILINE)
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"[`*_\s]+", " ", paragraph).strip())
        if len(sentence.split()) in SENTENCE_WORDS and sentence[-1] in ".!?" and sentence[0].isupper()
    )
    return list(found)


def _pieces(sentences: Sequence[str]) -> list[str]:
    """Every word seen twice is a piece, and every part of a word that is frequent."""
    words = Counter(word for sentence in sentences for word in re.findall(r" ?\w+", sentence))
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for length in PIECE_LENGTHS:
            for start in range(len(word) - length + 1):
                parts[word[start : start + length]] += count
    whole = {word for word, count in words.items() if count >= 2}
    frequent = {part for part, count in parts.items() if count >= 12}
    return sorted(whole | frequent)
