"""A bar on stderr while runs go on: how far, how fast, how long still."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["solving", "watching"]


class _Rate(ProgressColumn):
    """Requests a second, of real time."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} requests/s")


@contextmanager
def watching(totals: list[tuple[str, int]]) -> Generator[Callable[[int, int], None] | None]:
    """Show one bar over all runs; yield what tells it of progress, or None without a terminal.

    Args:
        totals: What each run is called, and how many requests it has.
    """
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Rate(), TimeRemainingColumn())
    taken = [0] * len(totals)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=sum(total for _, total in totals))

        def tell(index: int, count: int) -> None:
            taken[index] = count
            open_ = [i for i, (_, total) in enumerate(totals) if 0 < taken[i] < total]
            shown = ", ".join(totals[i][0] for i in (open_ or [index])[:2])
            bar.update(task, completed=sum(taken), description=shown)

        yield tell


@contextmanager
def solving(what: str) -> Generator[Callable[[str], None]]:
    """Show that something is being solved, for as long as it takes; yield what tells of which."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status(what) as status:
        yield status.update
