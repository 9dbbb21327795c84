"""What differs between recorded runs: the same release on the same platform should be judged the same each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferencebox.report.model import Run

NOT_SELECTED = "not selected"


@dataclass(frozen=True)
class Difference:
    """A test that was not judged the same in all runs.

    Args:
        verdicts: one for each run.
        reasons: of those that did not pass, as far as there are any.
    """

    scenario: str
    test: str
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """The tests with more than one verdict, in the order of the specification."""
    judged = [_judged(run) for run in runs]
    tests = dict.fromkeys(test for each in judged for test in each)
    found = []
    for scenario, test in tests:
        answers = [each.get((scenario, test), (NOT_SELECTED, "")) for each in judged]
        verdicts = tuple(verdict for verdict, _ in answers)
        if len(set(verdicts)) > 1:
            reasons = dict.fromkeys(reason for verdict, reason in answers if reason and verdict != "passed")
            found.append(Difference(scenario, test, verdicts, tuple(reasons)))
    return found


def _judged(run: Run) -> Mapping[tuple[str, str], tuple[str, str]]:
    """(scenario, title of the test) -> verdict and reason."""
    return {
        (name, item.title): (item.verdict, item.reason) for name, result in run.results.items() for item in result.items
    }
