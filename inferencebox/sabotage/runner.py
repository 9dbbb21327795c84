"""Breaks the platform in one way at a time and sees who notices."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inferencebox import providers
from inferencebox.errors import SetupProblem
from inferencebox.paths import state_dir
from inferencebox.platform import Platform
from inferencebox.providers.options import PlatformOptions
from inferencebox.release import DEFAULT_RELEASE
from inferencebox.turns import turn, within
from inferencebox.verdicts import AS_EXPECTED, JUDGED_WELL

from .breaking import broken, heal_leftovers
from .catalogue import Catalogue, Sabotage
from .effects import NoEffect
from .healthy import HealthyRun
from .outcomes import Outcome, Record
from .suite import Suite, Verdict

PATIENCE = 0.4
"""Under a sabotage scenarios wait that much shorter for what does not come; those that pass healthy with it."""
RECOVERY_SECONDS = 90.0
RECOVERY_PAUSE = 5.0


class Teller(Protocol):
    """Is told what happens."""

    def healthy(self, verdicts: dict[str, Verdict]) -> None: ...
    def begins(self, sabotage: Sabotage, number: int, of: int) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class Runner:
    """One run over some sabotages.

    Args:
        record: where outcomes are kept; sabotages that were killed according to it are not tried again.
        instance: name of the platform, which is brought up if it is not there.
        provider: who then brings it up.
        healthy: record of a run on the platform: what passed there is not run on the healthy platform again.
    """

    catalogue: Catalogue
    suite: Suite
    record: Record
    tell: Teller
    instance: str
    provider: str = "local"
    healthy: Path | None = None
    brought_up: bool = False
    patience: dict[str, float] = field(default_factory=dict)
    unwell: dict[str, str] = field(default_factory=dict)

    def run(self, sabotages: Sequence[Sabotage]) -> None:
        """Healthy first, then each sabotage."""
        done = {name for name, outcome in self.record.outcomes.items() if outcome.good}
        todo = [each for each in sabotages if each.name not in done]
        platform = self._platform()
        self._baseline(todo, HealthyRun.of(self.healthy, platform) if self.healthy else None)
        for number, sabotage in enumerate(todo, 1):
            self.tell.begins(sabotage, number, len(todo))
            with turn(state_dir(self.instance), exclusive=True):
                outcome = self._one(platform, sabotage)
            self.record.add(outcome)
            self.tell.ended(outcome)
            if outcome.healing and number < len(todo):
                platform = self._replaced(outcome)

    def expected(self, sabotage: str) -> list[str]:
        """Scenarios that say they notice it."""
        return [claim.id for claim in self.suite.claims.values() if sabotage in claim.sabotage]

    def _platform(self) -> Platform:
        try:
            platform = providers.attach(self.instance)
        except SetupProblem:
            if self.healthy:
                raise
            return self._anew()
        if healed := heal_leftovers(platform):
            self.tell.note(f"healed {healed} objects and components that an earlier run had left broken")
        return platform

    def _replaced(self, outcome: Outcome) -> Platform:
        """Another platform in the place of one that is not healed. One that was there before is somebody's."""
        if not self.brought_up:
            raise SetupProblem(
                f"the platform {self.instance} is not as it was after {outcome.sabotage}: {outcome.healing}",
                f"it is not this run's to take down: ibox down --instance {self.instance}, then ibox sabotage --resume",
            )
        return self._anew()

    def _anew(self) -> Platform:
        self.tell.note(f"bringing up a platform ({self.instance})")
        providers.close_platform(self.instance)
        self.brought_up = True
        return providers.open_platform(self.provider, self.instance, DEFAULT_RELEASE, PlatformOptions())

    def _baseline(self, sabotages: Sequence[Sabotage], recorded: HealthyRun | None) -> None:
        """Who is green on the healthy platform, and with how much patience."""
        concerned = [name for sabotage in sabotages for name in self.expected(sabotage.name)]
        wanted = dict.fromkeys([*concerned, *self._asked_anyway])
        known = self._known(recorded, list(wanted)) if recorded else {}
        quick = self.suite.run([name for name in wanted if name not in known], PATIENCE)
        slow = self.suite.run([name for name, seen in quick.items() if seen.verdict not in AS_EXPECTED])
        self.patience = {name: PATIENCE for name, seen in quick.items() if seen.verdict in JUDGED_WELL}
        self.patience |= {name: 1.0 for name, seen in {**known, **slow}.items() if seen.verdict in JUDGED_WELL}
        healthy = {**known, **quick, **slow}
        self.unwell = {
            name: f"{seen.verdict}: {seen.first_line}"
            for name, seen in healthy.items()
            if seen.verdict not in JUDGED_WELL
        }
        self.tell.healthy(healthy)
        if wanted and not self.patience:
            raise SetupProblem("no scenario is green on the healthy platform", "run `ibox demo` and read its report")
        if recorded:
            self._is_as_recorded(recorded)

    @property
    def _asked_anyway(self) -> list[str]:
        """Quick scenarios that say of the platform as it is now whether it is healthy."""
        return self._there([*self.catalogue.bystanders, *self.catalogue.canaries])

    def _known(self, recorded: HealthyRun, wanted: Sequence[str]) -> dict[str, Verdict]:
        """What the record says of these scenarios, but for those that are asked anyway."""
        anyway = self._asked_anyway
        known = recorded.green(self.suite.claims[name] for name in wanted if name not in anyway)
        self.tell.note(
            f"{len(known)} of {len(wanted)} scenarios passed in {recorded.file}, {recorded.hours:.1f} hours ago; "
            "the others are run now"
        )
        return known

    def _is_as_recorded(self, recorded: HealthyRun) -> None:
        """Raises:
        SetupProblem: what passed in the record and was asked now as well is red now.
        """
        passed = recorded.green(self.suite.claims[name] for name in self._asked_anyway)
        if red := [f"{name} is {self.unwell[name]}" for name in passed if name in self.unwell]:
            raise SetupProblem(
                f"the platform {self.instance} is not as healthy as in {recorded.file}: {'; '.join(red)}",
                "heal it, or leave --healthy out",
            )

    def _one(self, platform: Platform, sabotage: Sabotage) -> Outcome:
        began = time.monotonic()
        named = self.expected(sabotage.name)
        outcome = Outcome(
            sabotage.name,
            expected=[name for name in named if name not in self.unwell],
            left_out={name: self.unwell[name] for name in named if name in self.unwell},
            allowed=dict(sabotage.collateral),
        )
        if outcome.expected:
            try:
                with broken(platform, sabotage) as healing:
                    outcome.verdicts = self._ask([*outcome.expected, *self._bystanders(sabotage)])
                outcome.healing = healing.problem
            except NoEffect as problem:
                outcome.problem = str(problem)
            except Exception as problem:
                outcome.healing = f"{type(problem).__name__}: {problem}"
            outcome.healing = outcome.healing or _unended(outcome) or self._recover()
        outcome.seconds = round(time.monotonic() - began, 1)
        return outcome

    def _ask(self, names: Sequence[str]) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        for patience in sorted({self.patience[name] for name in names}):
            equally = [name for name in names if self.patience[name] == patience]
            found |= self.suite.run(equally, patience, within(state_dir(self.instance)))
        return found

    def _bystanders(self, sabotage: Sabotage) -> list[str]:
        named = self.expected(sabotage.name)
        there = self._there(self.catalogue.bystanders)
        return [name for name in there if name not in (*named, *self.unwell, *sabotage.collateral)]

    def _recover(self) -> str:
        """Until the canaries are green; why they are not."""
        canaries = [name for name in self._there(self.catalogue.canaries) if name not in self.unwell]
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            seen = self.suite.run(canaries, PATIENCE, within(state_dir(self.instance)))
            red = {name: each for name, each in seen.items() if each.verdict not in JUDGED_WELL}
            if not red or time.monotonic() > deadline:
                return "; ".join(f"{name} is {each.verdict}: {each.first_line}" for name, each in red.items())
            time.sleep(RECOVERY_PAUSE)

    def _there(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.suite.claims]


def _unended(outcome: Outcome) -> str:
    """What a scenario leaves behind that was ended in the middle, nobody knows."""
    hung = [name for name, seen in outcome.verdicts.items() if seen.verdict == "missing"]
    return f"{', '.join(hung)} did not come to an end" if hung else ""
