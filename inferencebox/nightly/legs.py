"""What a night consists of, and what became of each part of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.release import Release
from inferencebox.support import Level, findings

WORDS = ("held", "broken", "not judged", "refused")
"""Every promise held; one did not; the environment kept it from being known; the versions don't go together."""


@dataclass(frozen=True)
class Leg:
    """One run of the suite: a release (name or file) on a provider."""

    release: str
    provider: str

    @property
    def name(self) -> str:
        return f"{Path(self.release).name.removesuffix('.yaml')}-{self.provider}"

    def refusal(self) -> str:
        """Why its versions don't go together; empty when they do."""
        try:
            found = findings(Release.load(self.release))
        except SetupProblem as problem:
            return str(problem)
        return "; ".join(finding.text for finding in found if finding.level is Level.REFUSE)


@dataclass
class LegOutcome:
    """What became of a leg.

    Args:
        leg: its name.
        word: one of `WORDS`.
        reason: why it was refused or not judged.
        seconds: how long it took.
        verdicts: scenario ID to verdict.
    """

    leg: str
    word: str
    reason: str = ""
    seconds: float = 0.0
    verdicts: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.verdicts.values())


@dataclass(frozen=True)
class Change:
    """A scenario whose verdict on a leg is another one than the night before."""

    leg: str
    scenario: str
    before: str
    now: str


def legs(releases: Sequence[str], providers: Sequence[str]) -> list[Leg]:
    """Every release on every provider, in the order given."""
    return [Leg(release, provider) for release in releases for provider in providers]


def changes(before: Sequence[LegOutcome], now: Sequence[LegOutcome]) -> list[Change]:
    """What is different from the night before, of scenarios that both nights tried."""
    known = {outcome.leg: outcome.verdicts for outcome in before}
    return [
        Change(outcome.leg, name, known[outcome.leg][name], verdict)
        for outcome in now
        if outcome.leg in known
        for name, verdict in outcome.verdicts.items()
        if name in known[outcome.leg] and known[outcome.leg][name] != verdict
    ]
