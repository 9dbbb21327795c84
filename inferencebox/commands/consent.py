"""Shows what a platform takes on somebody's cluster, and asks before anything is installed there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.prompt import Confirm
from rich.table import Table

from inferencebox.errors import SetupProblem
from inferencebox.providers.cluster.plan import Line, Plan, State

STYLES = {State.MISSING: "yellow", State.OLD: "bold red", State.UNUSABLE: "bold red"}


@dataclass(frozen=True)
class Consent:
    """Somebody who is asked.

    Args:
        console: where.
        given: whether they agreed beforehand.
    """

    console: Console
    given: bool

    def __call__(self, plan: Plan) -> None:
        """
        Raises:
            SetupProblem: it is not possible, they did not agree, or there is nobody to ask.
        """
        self._show(plan)
        plan.require_possible()
        if not plan.missing:
            self.console.print("Nothing is missing.\n")
            return
        if self.given:
            return
        if not sys.stdin.isatty():
            plan.require_nothing_to_do()
        question = f"Install {len(plan.missing)} layers on the cluster {plan.survey.context} ({plan.survey.url})?"
        if not Confirm.ask(question, console=self.console, default=False):
            raise SetupProblem("nothing was installed", "agree, or choose another --context")

    def _show(self, plan: Plan) -> None:
        survey, nodes = plan.survey, plan.survey.nodes
        size = f"{nodes.count} nodes, {nodes.cpu:g} cores and {nodes.memory_gib:g} GiB for pods"
        self.console.print(f"The cluster {survey.context} ({survey.url}): {size}", markup=False)
        for name, text in survey.facts.items():
            self.console.print(f"  {name}: {text}", markup=False)
        self.console.print(_table(plan.lines))
        for line in plan.lines:
            if line.note:
                self.console.print(f"  {line.part}: {line.note}", markup=False)
        for capability, why in plan.choice.left_out.items():
            self.console.print(f"Left out: {capability} ({why})", markup=False)
        if not plan.missing:
            return
        self.console.print(f"To be installed, labelled as the platform {plan.instance}: {', '.join(plan.missing)}")
        self.console.print(_images(plan), markup=False)


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("part", "there", "release", ""):
        table.add_column(column)
    for line in lines:
        style = STYLES.get(line.state, "green")
        table.add_row(line.part, line.there or "-", line.wanted or "-", f"[{style}]{line.state}[/]")
    return table


def _images(plan: Plan) -> str:
    if plan.survey.nodes.images is None:
        return "Images: the nodes do not tell all that they have; they pull the rest from the vendors' registries"
    if not plan.pulled:
        return "Images: the nodes have all of them"
    hosts = sorted({reference.partition("/")[0] for reference in plan.pulled})
    return f"Images: {len(plan.pulled)} are not on every node, which will pull them from {', '.join(hosts)}"
