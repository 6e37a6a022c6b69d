"""`inferx top`: nodes, their GPUs, and functions, as they are now."""

import signal
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inferx.cli.client.command import SETTINGS, Asking, asking
from inferx.cli.client.printing import print_page, table
from inferx.client.cluster import Cluster
from inferx.client.errors import RefusedError
from inferx.client.names import Place
from inferx.core.units import GIB

__all__ = ["top"]

BAR: Final = 10
"""Characters of a full bar."""
_COUNTS: Final = ("queued", "inflight", "ready", "starting", "standby")


@click.command(context_settings=SETTINGS)
@click.option(
    *("-n", "--interval", "interval_s"),
    type=click.FloatRange(0.2, 3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Print once, and end.  [default where no terminal is]")
@asking
def top(*, interval_s: float, once: bool, ask: Asking) -> None:
    """Watch nodes, GPUs and functions until Ctrl-C: those that the key may see."""
    console = Console(highlight=False)
    with ask.cluster() as cluster:
        if once or not console.is_terminal:
            print_page(*_page(cluster))
            return
        page = Group(*_page(cluster))
        with ExitStack() as stack:
            with _undisturbed():
                live = stack.enter_context(
                    Live(page, console=console, screen=True, auto_refresh=False)
                )
            while True:
                time.sleep(interval_s)
                page = Group(*_page(cluster))
                with _undisturbed():
                    live.update(page, refresh=True)


@contextmanager
def _undisturbed() -> Generator[None]:
    """Let a drawing end before Ctrl-C is heard.

    Of the first one that is cut short, nobody would give the terminal its screen back.
    """
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)

    usual = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    if heard:
        signal.raise_signal(heard[0])


def _page(cluster: Cluster) -> list[Text | Table]:
    parts: list[Text | Table] = []
    try:
        parts += [_nodes(cluster.nodes()), Text()]
    except RefusedError as error:
        # Whoever has a tenant's key sees its functions; where they run is not theirs to see.
        if error.status != 403:
            raise
    return [*parts, _functions(cluster.functions(Place()))]


def _nodes(nodes: Iterable[Mapping[str, Any]]) -> Table:
    rows: list[Iterable[str]] = []
    for node in nodes:
        for number, gpu in enumerate(node["gpus"]):
            rows.append(
                (
                    node["name"],
                    _state(node),
                    str(number),
                    _share(gpu["milli_charged"], 1_000),
                    _share(gpu["hbm_bytes_charged"], gpu["hbm_bytes"]),
                    f"{gpu['hbm_bytes_charged'] / GIB:.1f}/{gpu['hbm_bytes'] / GIB:.1f}",
                    f"{node['host_bytes_charged'] / GIB:.1f}/{node['host_bytes'] / GIB:.1f}",
                )
            )
    columns = ("node", "state", "gpu", "compute", "memory", "GiB", "host GiB")
    return table(columns, rows, right=("gpu", "GiB", "host GiB"))


def _state(node: Mapping[str, Any]) -> str:
    if not node["alive"]:
        return "lost"
    if not node["connected"]:
        return "away"
    return "ready" if node["schedulable"] else "drained"


def _share(used: int, total: int) -> str:
    share = used / total if total else 0.0
    full = min(round(share * BAR), BAR)
    return f"{'█' * full}{'·' * (BAR - full)} {share:4.0%}"


def _functions(functions: Iterable[Mapping[str, Any]]) -> Table:
    busiest = sorted(functions, key=lambda one: (-one["queued"], -one["inflight"], one["name"]))
    rows = [
        (
            str(one["name"]),
            *(str(one[count]) for count in _COUNTS),
            "room" if one["waits_for_room"] else "",
        )
        for one in busiest
    ]
    return table(("function", *_COUNTS, "waits for"), rows, right=_COUNTS)
