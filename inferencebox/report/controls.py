"""Controls of GDPR, HIPAA and SOC 2, and what this run can say to each (SEC-36)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from inferencebox.errors import SetupProblem
from inferencebox.report.model import Run

_SOURCE = Path(__file__).parent.parent / "data" / "controls.yaml"


class Control(BaseModel):
    """A control and the scenarios that are evidence for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    framework: str
    control: str
    about: str
    scenarios: tuple[str, ...]


@dataclass(frozen=True)
class ControlResult:
    """What the run says to one control."""

    control: Control
    verdicts: dict[str, str]

    @property
    def standing(self) -> str:
        """violated, supported, partly supported, or no evidence."""
        values = list(self.verdicts.values())
        if "failed" in values:
            return "violated"
        if all(value == "passed" for value in values):
            return "supported"
        return "partly supported" if "passed" in values or "known gap" in values else "no evidence"


@cache
def controls() -> tuple[Control, ...]:
    return tuple(Control(**entry) for entry in yaml.safe_load(_SOURCE.read_text(encoding="utf-8")))


def controls_report(run: Run | None) -> list[ControlResult]:
    """Each control with the verdicts of its scenarios; those without a test in the run are *not tested*.

    Raises:
        SetupProblem: there is no run: without results nothing can be said to any control.
    """
    if run is None or not run.results:
        raise SetupProblem("There is no run to map controls to", "run the suite first: pytest, or ibox test")
    return [
        ControlResult(
            control,
            {name: run.results[name].verdict if name in run.results else "not tested" for name in control.scenarios},
        )
        for control in controls()
    ]
