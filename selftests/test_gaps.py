"""Known gaps: which entries count, and for which versions."""

from pathlib import Path

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.gaps import known_gaps
from inferencebox.release import Release

ENTRY = """
late-list: {scenario: SEC-07, layer: ai-gateway, versions: [v1.0.0], reason: it is answered early, upstream: "https://example.org/1"}
"""


def gaps_of(folder: Path, text: str) -> Path:
    file = folder / "known-gaps.yaml"
    file.write_text(text)
    return file


def test_a_gap_is_known_of_the_versions_it_names_only(tmp_path: Path) -> None:
    gap = known_gaps(gaps_of(tmp_path, ENTRY))["late-list"]
    assert gap.applies({"ai-gateway": "v1.0.0"})
    assert not gap.applies({"ai-gateway": "v1.0.1"})
    assert not gap.applies({"istio": "v1.0.0"})


def test_the_shipped_entries_name_layers_of_the_default_release() -> None:
    layers = Release.load("2026.11").layers
    assert all(gap.layer in layers for gap in known_gaps().values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (ENTRY.replace("SEC-07", "SEC-99"), "SEC-99 is not a scenario"),
        (ENTRY.replace("https://example.org/1", "somewhere"), "String should match pattern"),
        (ENTRY.replace("[v1.0.0]", "[]"), "at least 1 item"),
        ("late-list: yes", "mapping"),
    ],
)
def test_an_incomplete_entry_is_refused(tmp_path: Path, wrong: str, said: str) -> None:
    with pytest.raises(SetupProblem, match=said):
        known_gaps(gaps_of(tmp_path, wrong))


def test_no_entries_are_no_gaps(tmp_path: Path) -> None:
    assert known_gaps(gaps_of(tmp_path, "# none\n")) == {}
