"""What a person sees of a run: one line per sabotage, in words, and the kill matrix at the end."""

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferencebox.verdicts import AS_EXPECTED, JUDGED_WELL

from .catalogue import Sabotage
from .outcomes import NOTICED, Outcome, Record
from .suite import Verdict

COLOURS = {"killed": "green", "nobody asked": "dim", "unrelated red": "yellow"}


@dataclass
class Terminal:
    """Tells a run as it goes."""

    console: Console
    began: float = field(default_factory=time.monotonic)

    def healthy(self, verdicts: dict[str, Verdict]) -> None:
        red = {name: seen for name, seen in verdicts.items() if seen.verdict not in AS_EXPECTED}
        idle = [name for name, seen in verdicts.items() if seen.verdict == "not exercised"]
        self._say(f"healthy platform: {len(verdicts) - len(red) - len(idle)} of {len(verdicts)} scenarios green")
        for name, seen in red.items():
            self._say(f"  left out, {seen.verdict} on the healthy platform: {name}: {seen.first_line}", "yellow")
        if idle:
            self._say(f"  left out, not exercised here: {', '.join(idle)}", "dim")

    def begins(self, sabotage: Sabotage, number: int, of: int) -> None:
        self._say(f"[{number}/{of}] {sabotage.title} ({sabotage.name})", "bold")

    def ended(self, outcome: Outcome) -> None:
        for name, seen in outcome.verdicts.items():
            expected, red = name in outcome.expected, seen.verdict not in JUDGED_WELL
            if expected and seen.verdict == NOTICED:
                self._say(f"    {name} notices: {seen.first_line}", "green")
                if seen.stayed_green:
                    self._say(f"      but not its {', '.join(seen.stayed_green)}", "yellow")
            elif expected:
                self._say(f"    {name} does not notice ({seen.verdict}) {seen.first_line}", "red")
            elif red and name in outcome.unrelated:
                self._say(f"    {name} has nothing to do with it and is {seen.verdict}: {seen.first_line}", "red")
        for name, why in outcome.left_out.items():
            self._say(f"    {name} could not be asked: {why}", "dim")
        for what, why in (("not effective", outcome.problem), ("not healed", outcome.healing)):
            if why:
                self._say(f"    {what}: {why}", "red")
        colour = COLOURS.get(outcome.word, "red")
        self._say(f"    {outcome.word} after {outcome.seconds:.0f} s", colour)

    def note(self, text: str) -> None:
        self._say(text, "dim")

    def table(self, record: Record) -> None:
        """The kill matrix: who was expected to notice, and did."""
        table = Table(title="Kill matrix", title_justify="left")
        for heading in ("sabotage", "verdict", "noticed by", "not noticed by", "red without cause", "seconds"):
            whole = heading in ("sabotage", "verdict", "seconds")
            table.add_column(heading, no_wrap=whole, justify="right" if heading == "seconds" else "left")
        for outcome in record.outcomes.values():
            table.add_row(
                outcome.sabotage,
                Text(outcome.word, style=COLOURS.get(outcome.word, "red")),
                " ".join(outcome.noticed),
                " ".join(outcome.survived),
                " ".join(outcome.unrelated),
                f"{outcome.seconds:.0f}",
            )
        self.console.print(table)

    def _say(self, text: str, style: str = "") -> None:
        stamp = f"{time.monotonic() - self.began:6.0f} s  "
        self.console.print(Text(stamp, style="dim") + Text(text, style=style), soft_wrap=True, highlight=False)
