"""BurstGPT: requests to hosted GPT models, stamps in seconds.

Function = Model. Rows with 0 response tokens are failures: dropped and counted. Session ids and
elapsed times, where a release has them, are not kept. Rows are sorted by arrival.

Source: Wang et al., "BurstGPT", KDD 2025; HPMLL/BurstGPT (CC-BY-4.0).
"""

from collections.abc import Iterator

from inferx.sim.workload.source import Head, Rows, Source
from inferx.sim.workload.table import tables

NAME = "burstgpt"
EXPECTS = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
ORDERED = False
COMPANION = False
_COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens")


def matches(head: Head) -> bool:
    """Tell by the four columns that are read."""
    return head.columns.issuperset(_COLUMNS)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    source.tenants.code("default")
    for table in tables(source, _COLUMNS):
        kept = table.where(table.tokens("Response tokens") > 0, "no output tokens")
        yield Rows(
            at_ns=kept.seconds_ns("Timestamp"),
            function=source.functions.codes(kept.text("Model")),
            input_tokens=kept.tokens("Request tokens"),
            output_tokens=kept.tokens("Response tokens"),
            place=kept.place,
        )
