"""Runs the legs of a night one after another: each needs the machine for itself."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from inferencebox import command_line
from inferencebox.errors import SetupProblem
from inferencebox.journal import RUN_FILE
from inferencebox.paths import project_root
from inferencebox.report.model import Run
from inferencebox.report.reading import load
from inferencebox.report.render import render

from .legs import Leg, LegOutcome
from .record import NightRecord

WORD_OF_EXIT = {0: "held", 1: "broken"}
Tell = Callable[[str], None]


def run_night(
    legs: Sequence[Leg], folder: Path, arguments: Sequence[str], resume: bool, tell: Tell
) -> list[LegOutcome]:
    """Every leg's outcome, in their order.

    Args:
        legs: what to run.
        folder: each leg's reports go below it, under the leg's name.
        arguments: more arguments for pytest.
        resume: leave out legs that an interrupted night has ended.
        tell: is told one line for each leg that begins and ends.
    """
    record = NightRecord(folder)
    if not resume:
        record.begin()
    done = {outcome.leg: outcome for outcome in record.outcomes()}
    for number, leg in enumerate(legs, 1):
        if leg.name in done:
            tell(f"[{number}/{len(legs)}] {leg.name}: was {done[leg.name].word} before")
            continue
        tell(f"[{number}/{len(legs)}] {leg.name} ...")
        done[leg.name] = outcome = run_leg(leg, folder / leg.name, arguments)
        record.write(list(done.values()))
        tell(f"[{number}/{len(legs)}] {leg.name}: {_in_words(outcome)}")
    return [done[leg.name] for leg in legs]


def run_leg(leg: Leg, folder: Path, arguments: Sequence[str]) -> LegOutcome:
    """One run of the suite in a process of its own; its report is drawn whole."""
    if refusal := leg.refusal():
        return LegOutcome(leg.name, "refused", refusal)
    began = time.monotonic()
    where = [f"--provider={leg.provider}", f"--release={leg.release}", f"--reports={folder}"]
    (folder / RUN_FILE).unlink(missing_ok=True)
    done = subprocess.run(command_line.pytest(*where, *arguments), cwd=project_root(), check=False)
    seconds = round(time.monotonic() - began, 1)
    try:
        run = load(folder)
        render(folder)
    except SetupProblem as problem:
        return LegOutcome(leg.name, "not judged", f"{problem} (pytest's exit code {done.returncode})", seconds)
    verdicts = {name: result.verdict for name, result in run.results.items()}
    word = WORD_OF_EXIT.get(done.returncode, "not judged")
    return LegOutcome(leg.name, word, _reason(run) if word == "not judged" else "", seconds, verdicts)


def _reason(run: Run) -> str:
    found = run.of(verdict="error")
    return f"{found[0].promise.id}: {found[0].reason}" if found else "the run was cut short"


def _in_words(outcome: LegOutcome) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(outcome.counts.items()))
    return " ".join(
        filter(None, (outcome.word, f"after {outcome.seconds:.0f} s", f"({counts})" if counts else "", outcome.reason))
    )
