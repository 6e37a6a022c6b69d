"""Azure Functions 2021: one invocation a row, recorded when it ended.

Function = app and func together, tenant = app, arrival = `end_timestamp` - `duration`. Rows stand
in order of their end, so they are sorted by arrival: in memory, or on disk when there are many.

Source: Zhang et al., "Faster and Cheaper Serverless Computing on Harvested Resources", SOSP 2021;
Azure/AzurePublicDataset (CC-BY-4.0).
"""

from collections.abc import Iterator

from inferx.sim.workload.source import Head, Rows, Source
from inferx.sim.workload.table import joined, tables

NAME = "azure-functions-2021"
EXPECTS = "app,func,end_timestamp,duration"
ORDERED = False
COMPANION = False
_COLUMNS = ("app", "func", "end_timestamp", "duration")


def matches(head: Head) -> bool:
    """Tell by the four columns."""
    return head.columns.issuperset(_COLUMNS)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    for table in tables(source, _COLUMNS):
        # The rule for durations of zero must not move the arrival.
        measured = table.seconds_ns("duration")
        app = table.text("app")
        yield Rows(
            at_ns=table.seconds_ns("end_timestamp") - measured,
            function=source.functions.codes(joined([app, table.text("func")], "/")),
            duration_ns=table.durations_ns("duration"),
            tenant=source.tenants.codes(app),
            place=table.place,
        )
