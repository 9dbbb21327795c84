"""A very small language model: word pieces, an n-gram table with back-off, and vectors of hashed character n-grams.

Everything here needs numpy only; `train` says how the artifacts are made.
"""

import hashlib
import json
import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

HASH_BUCKETS = 4096
PROJECTED = 64
ORDER = 4
SENTENCES_PER_ANSWER = 2
_PRE_TOKEN = re.compile(r" ?\w+| ?[^\w\s]|\s")
_WORD = re.compile(r"\w+")


class WordPieces:
    """Longest piece first, within words; a character that is in no piece is a token of its own."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = frozenset(pieces)
        self._longest = max(map(len, pieces))

    def split(self, text: str) -> list[str]:
        return [piece for word in _PRE_TOKEN.findall(text) for piece in self._split_word(word)]

    def _split_word(self, word: str) -> Iterator[str]:
        start = 0
        while start < len(word):
            end = min(len(word), start + self._longest)
            while end > start + 1 and word[start:end] not in self._pieces:
                end -= 1
            yield word[start:end]
            start = end


class Vectoriser:
    """Half of a vector is the text's place among the training topics (TF-IDF, SVD), half a hash of its n-grams."""

    def __init__(self, idf: Vector, components: Vector) -> None:
        self._idf = idf
        self._components = components

    @property
    def dimensions(self) -> int:
        return int(self._components.shape[0]) + PROJECTED

    def embed(self, text: str) -> Vector:
        weights = hashed(text)
        topics = self._components @ (weights * self._idf)
        folded = (weights * _SIGNS).reshape(-1, PROJECTED).sum(axis=0)
        return _unit(np.concatenate([_unit(topics), _unit(folded)])).astype(np.float32)


def hashed(text: str) -> Vector:
    """Damped counts of words and character trigrams in a fixed number of buckets."""
    counts = np.zeros(HASH_BUCKETS, dtype=np.float32)
    for word in _WORD.findall(text.lower()) or [text]:
        padded = f"<{word}>"
        for gram in (padded, *(padded[i : i + 3] for i in range(len(padded) - 2))):
            counts[zlib.crc32(gram.encode()) % HASH_BUCKETS] += 1
    return np.log1p(counts)


_SIGNS = np.random.default_rng(7).choice(np.array([-1, 1], dtype=np.float32), HASH_BUCKETS)


def _unit(vector: Vector) -> Vector:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


class TinyText:
    """Answers with sentences that begin like the best matching ones it has read, and go on as its n-grams have it."""

    def __init__(self, pieces: Sequence[str], sentences: Sequence[str], vectoriser: Vectoriser, index: Vector) -> None:
        self._word_pieces = WordPieces(pieces)
        self._sentences = sentences
        self._vectoriser = vectoriser
        self._index = index

    @classmethod
    def load(cls, text_file: Path, vector_file: Path) -> "TinyText":
        text = json.loads(text_file.read_text())
        with np.load(vector_file) as arrays:
            vectoriser = Vectoriser(arrays["idf"], arrays["components"])
            return cls(text["pieces"], text["sentences"], vectoriser, arrays["index"])

    @property
    def dimensions(self) -> int:
        return self._vectoriser.dimensions

    def count_tokens(self, text: str) -> int:
        return len(self._word_pieces.split(text))

    def embed(self, text: str) -> Sequence[float]:
        return [round(float(value), 7) for value in self._vectoriser.embed(text)]

    def continue_text(self, prompt: str, *, temperature: float, seed: int | None) -> Iterator[str]:
        """The same prompt, temperature and seed give the same text."""
        chance = random.Random(hashlib.sha256(f"{seed} {prompt}".encode()).digest())
        similarity = self._index @ self._vectoriser.embed(prompt)
        best = np.argsort(-similarity, kind="stable")[:SENTENCES_PER_ANSWER]
        for number, start in enumerate(best):
            sentence = self._word_pieces.split(self._sentences[start])
            said = ["", *sentence[: ORDER - 1]]
            said[1] = f" {said[1]}" if number else said[1]
            yield from said[1:]
            said[1] = said[1].lstrip()
            while piece := self._next(said, temperature, chance):
                said.append(piece)
                yield piece

    def _next(self, said: Sequence[str], temperature: float, chance: random.Random) -> str:
        """The piece after the longest context that was ever read; an empty one ends the sentence."""
        for length in range(ORDER - 1, 0, -1):
            if followers := self._table.get(tuple(said[-length:])):
                if temperature < 0.01:
                    return max(followers, key=lambda piece: (followers[piece], piece))
                pieces = sorted(followers)
                return chance.choices(pieces, [followers[piece] ** (1 / temperature) for piece in pieces])[0]
        return ""

    @cached_property
    def _table(self) -> dict[tuple[str, ...], Counter[str]]:
        table: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for sentence in self._sentences:
            pieces = ["", *self._word_pieces.split(sentence), ""]
            for i in range(1, len(pieces)):
                for length in range(1, min(ORDER, i + 1)):
                    table[tuple(pieces[i - length : i])][pieces[i]] += 1
        return dict(table)
