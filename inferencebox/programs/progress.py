"""One line per program while programs are found, fetched or built."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text


class Progress(Protocol):
    """Is told what happens to each program."""

    def begin(self, name: str, version: str, doing: str, expected: float) -> None: ...

    def end(self, name: str, outcome: str) -> None: ...


class Silent:
    """Says nothing."""

    def begin(self, name: str, version: str, doing: str, expected: float) -> None:
        return

    def end(self, name: str, outcome: str) -> None:
        return


class Lines:
    """Plain lines, for logs: when something starts and when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: dict[str, float] = {}

    def begin(self, name: str, version: str, doing: str, expected: float) -> None:
        self._began[name] = time.monotonic()
        self._say(f"{name} {version}: {doing}, about {max(expected, 1):.0f} s")

    def end(self, name: str, outcome: str) -> None:
        began = self._began.pop(name, None)
        self._say(f"{name}: {outcome}" + (f" after {time.monotonic() - began:.1f} s" if began else ""))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Table:
    """A live table for a terminal."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def begin(self, name: str, version: str, doing: str, expected: float) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._bars.remove_task(task)
        self._tasks[name] = self._bars.add_task(f"{name} {version}", total=1, doing=doing, expected=expected)

    def end(self, name: str, outcome: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1, doing=outcome, expected=0.0)
        self._bars.update(self._tasks[name], completed=1, doing=outcome)


class Elapsed(ProgressColumn):
    """Seconds so far, and how many it will be."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        if task.finished:
            return Text(f"{elapsed or 0:.0f} s")
        return Text(f"{elapsed or 0:.0f} of about {task.fields['expected']:.0f} s")


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """A live table on a terminal, plain lines anywhere else."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TextColumn("{task.fields[doing]}"))
    with Bars(*columns, Elapsed(), console=console) as bars:
        yield Table(bars)
