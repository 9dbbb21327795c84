"""Texts that match a route's regular expression."""

import re

import pytest

from inferencebox.examples import example


@pytest.mark.parametrize(
    "pattern",
    [
        "/v[12]/models/iris([:/][a-z]+)?",
        "/v2/health/(live|ready)",
        "/([a-uw-zA-UW-Z0-9_][a-zA-Z0-9_./~-]*)?",
        "/[tT]okens([^a-zA-Z0-9].*)?",
        "/v[12]/models/.+",
        r"^/a\d{3}\w+$",
        "[^a]x",
        "https?",
    ],
)
def test_it_matches_as_a_whole(pattern: str) -> None:
    assert re.fullmatch(pattern, example(pattern))


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)b", "[ßü]"])
def test_what_no_route_needs_is_said_to_be_too_much(pattern: str) -> None:
    with pytest.raises(ValueError, match="no example"):
        example(pattern)
