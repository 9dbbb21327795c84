"""What a night leaves behind, so that an interrupted one goes on and the next one can compare."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.journal import reports_problem
from inferencebox.replacing import replace_file

from .legs import LegOutcome

RECORD = "nightly.json"
PREVIOUS = "previous.json"


class NightRecord:
    """The outcomes in a folder. Each is on disk as soon as its leg has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> None:
        """A new night: what is there becomes the night before.

        Raises:
            SetupProblem: the folder can't be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / RECORD).exists():
                (self.folder / RECORD).replace(self.folder / PREVIOUS)
            self.write([])
        except OSError as error:
            raise reports_problem(self.folder, error) from error

    def write(self, outcomes: Sequence[LegOutcome]) -> None:
        described = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
        replace_file(self.folder / RECORD, f"{described}\n")

    def outcomes(self) -> list[LegOutcome]:
        return self._read(RECORD)

    def night_before(self) -> list[LegOutcome]:
        return self._read(PREVIOUS)

    def _read(self, name: str) -> list[LegOutcome]:
        file = self.folder / name
        if not file.exists():
            return []
        try:
            return [LegOutcome(**entry) for entry in json.loads(file.read_text())]
        except (ValueError, TypeError) as error:
            raise SetupProblem(f"{file} is no record of a night", "remove it, or name another folder") from error
