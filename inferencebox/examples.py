"""A text that a regular expression matches: for knocking at every door that a route opens."""

import re
import re._constants as _codes  # type: ignore[import-not-found]  # what `re` reads with; nothing public does
import re._parser as _parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from typing import Any

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZ-./~"
_CATEGORIES = {_codes.CATEGORY_DIGIT: r"\d", _codes.CATEGORY_WORD: r"\w", _codes.CATEGORY_SPACE: r"\s"}


def example(pattern: str) -> str:
    """A short plain text that the whole expression matches, with one round of what may be repeated or left out.

    Raises:
        ValueError: it uses what no route needs (look-around, conditions).
    """
    text: str = "".join(_text(operation, argument) for operation, argument in _parser.parse(pattern))
    if re.fullmatch(pattern, text) is None:
        raise ValueError(f"no example of {pattern!r} was found")
    return text


def _text(operation: Any, argument: Any) -> str:
    if operation is _codes.LITERAL:
        return chr(argument)
    if operation is _codes.ANY:
        return "x"
    if operation is _codes.IN:
        return _member(argument)
    if operation is _codes.BRANCH:
        return "".join(_text(*each) for each in argument[1][0])
    if operation is _codes.SUBPATTERN:
        return "".join(_text(*each) for each in argument[-1])
    if operation in (_codes.MAX_REPEAT, _codes.MIN_REPEAT):
        low, high, inner = argument
        times = min(max(int(low), 1), int(high))
        return "".join(_text(*each) for each in inner) * times
    if operation is _codes.AT:
        return ""
    if operation is _codes.NOT_LITERAL:
        return "a" if argument != ord("a") else "b"
    raise ValueError(f"no example can be made of {operation}")


def _member(choices: list[Any]) -> str:
    """One character of a set such as [a-z] or [^0-9]."""
    negated = choices[0][0] is _codes.NEGATE
    fitting: Iterator[str] = (each for each in _LETTERS if any(_belongs(each, choice) for choice in choices) != negated)
    return next(fitting, "")


def _belongs(letter: str, choice: Any) -> bool:
    operation, argument = choice
    if operation is _codes.LITERAL:
        return bool(ord(letter) == argument)
    if operation is _codes.RANGE:
        return bool(argument[0] <= ord(letter) <= argument[1])
    return operation is _codes.CATEGORY and re.fullmatch(_CATEGORIES.get(argument, "(?!)"), letter) is not None
