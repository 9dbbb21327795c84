"""``ibox cache``: what programs and images take up on this machine, and room when it is wanted."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from inferencebox.paths import cache_dir
from inferencebox.programs.store import Kept, Store

DAY = 24 * 3600.0
SHOW_EXAMPLES = """
[bold]Examples[/bold]

  ibox cache show                  every entry, the one that was not used for longest first
"""
PRUNE_EXAMPLES = """
[bold]Examples[/bold]

  ibox cache prune                 remove what nothing has used for 30 days

  ibox cache prune --days 1        remove what was not used since yesterday

What is removed is made again when it is wanted.
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Programs and images that are kept on this machine.", no_args_is_help=True)
    group.command(epilog=SHOW_EXAMPLES)(show)
    group.command(epilog=PRUNE_EXAMPLES)(prune)
    app.add_typer(group, name="cache")


def show() -> None:
    """Say what is kept, how large it is, and when it was last used."""
    store = Store(cache_dir())
    _print(store, store.kept(), "kept")


def prune(
    days: Annotated[float, typer.Option(min=1, help="Remove what was not used for so many days.")] = 30,
) -> None:
    """Remove what has not been used for a while: pins change, and what older ones were made into stays."""
    store = Store(cache_dir())
    old = [each for each in store.kept() if time.time() - each.used > days * DAY]
    _print(store, old, "removed")
    for each in old:
        store.forget(each)


def _print(store: Store, entries: Sequence[Kept], done: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("what", "MB", "days unused", box=None)
    sizes = [store.size_of(each) for each in entries]
    for each, size in zip(entries, sizes, strict=True):
        table.add_row(f"{each.name}/{each.key}", f"{size / 1e6:.0f}", f"{(time.time() - each.used) / DAY:.0f}")
    if entries:
        console.print(table)
    console.print(f"{len(entries)} {done}, {sum(sizes) / 1e9:.1f} GB, cache {store.root}", markup=False)
