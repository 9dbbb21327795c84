"""What came out of it: for each sabotage, who noticed; kept in files from which a run can go on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferencebox.journal import reports_problem
from inferencebox.replacing import replace_file
from inferencebox.report.reading import KILL_MATRIX
from inferencebox.verdicts import AS_EXPECTED, JUDGED_WELL

from .suite import Verdict

RESUME_FILE = "kill-matrix.json"
NOTICED = "failed"


@dataclass
class Outcome:
    """One sabotage.

    Args:
        expected: scenarios that must turn red.
        verdicts: of these and of the bystanders, under the sabotage.
        left_out: scenarios that name it but were not green on the healthy platform, with what they said.
        healing: why the platform was not healthy again; empty if it was.
        problem: why it could not be tried.
    """

    sabotage: str
    expected: list[str]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    allowed: dict[str, str] = field(default_factory=dict)
    healing: str = ""
    problem: str = ""
    seconds: float = 0.0

    @property
    def survived(self) -> list[str]:
        """Scenarios that should have noticed and did not. An error is no verdict on the platform: not noticed."""
        return [name for name in self.expected if name in self.verdicts and self.verdicts[name].verdict != NOTICED]

    @property
    def noticed(self) -> list[str]:
        """Scenarios that should have noticed and did."""
        return [name for name in self.expected if name in self.verdicts and name not in self.survived]

    @property
    def half_blind(self) -> dict[str, list[str]]:
        """Those that noticed by some of their tests, with the others: perhaps rightly green, for a reader to judge."""
        return {name: list(green) for name in self.noticed if (green := self.verdicts[name].stayed_green)}

    @property
    def unrelated(self) -> list[str]:
        """Bystanders that turned red."""
        return [
            name
            for name, seen in self.verdicts.items()
            if name not in self.expected and name not in self.allowed and seen.verdict not in AS_EXPECTED
        ]

    @property
    def word(self) -> str:
        """The verdict on the sabotage."""
        if self.problem:
            return "no effect"
        if self.survived:
            return "survived"
        if self.unrelated:
            return "unrelated red"
        if self.healing:
            return "not healed"
        return "killed" if self.expected else "nobody asked"

    @property
    def good(self) -> bool:
        return self.word == "killed"


@dataclass
class Record:
    """All outcomes, written after each."""

    folder: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def resume(cls, folder: Path) -> "Record":
        """The record that is there; an empty one if there is none."""
        file = folder / RESUME_FILE
        if not file.exists():
            return cls(folder)
        kept = json.loads(file.read_text())
        outcomes = {name: _outcome(entry) for name, entry in kept["outcomes"].items()}
        return cls(folder, outcomes, kept.get("facts", {}))

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.sabotage] = outcome
        self.write()

    def write(self) -> None:
        """For the reports (YAML) and for going on (JSON)."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(
                self.folder / KILL_MATRIX,
                yaml.safe_dump(self.matrix(), sort_keys=False, allow_unicode=True, width=1000),
            )
            kept = {"facts": self.facts, "outcomes": {name: asdict(each) for name, each in self.outcomes.items()}}
            for name, outcome in self.outcomes.items():
                kept["outcomes"][name]["verdict"] = outcome.word
            replace_file(self.folder / RESUME_FILE, json.dumps(kept, indent=1))
        except OSError as error:
            raise reports_problem(self.folder, error) from error

    def matrix(self) -> dict[str, Any]:
        """As `inferencebox.report` reads it, and why each red one was red."""
        asked = {name: each for name, each in self.outcomes.items() if each.verdicts}
        return {
            "matrix": {
                name: {key: seen.verdict for key, seen in each.verdicts.items()} for name, each in asked.items()
            },
            "expected": {name: each.expected for name, each in asked.items()},
            "verdicts": {name: each.word for name, each in self.outcomes.items()},
            "first_line": {
                name: {key: seen.first_line for key, seen in each.verdicts.items() if seen.verdict not in JUDGED_WELL}
                for name, each in asked.items()
            },
            "stayed_green": {name: each.half_blind for name, each in asked.items() if each.half_blind},
        }


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    known = {key: value for key, value in entry.items() if key not in ("verdict", "verdicts")}
    return Outcome(**known, verdicts={name: _verdict(seen) for name, seen in entry["verdicts"].items()})


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**entry, "stayed_green": tuple(entry.get("stayed_green", ()))})
