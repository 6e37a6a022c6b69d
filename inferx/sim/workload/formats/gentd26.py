"""Alibaba GenAI 2026 request log: image generation over many base models.

Function = `checkpoint_model_version_id`, tenant = `groupId`, duration = `exec_time_seconds`
whatever the status: a failed request held its GPU too. Rows without a model or a duration are
dropped and counted. Stamps have a resolution of 1 s, so ties are common.

Source: alibaba/clusterdata, cluster-trace-v2026-GenAI; cite SoCC 2025.
"""

from collections.abc import Iterator

from inferx.sim.workload.source import Head, Rows, Source
from inferx.sim.workload.table import tables

NAME = "gentd26"
EXPECTS = "gmt_create,...,exec_time_seconds,groupId,...,checkpoint_model_version_id,..."
ORDERED = True
COMPANION = False
_COLUMNS = ("gmt_create", "exec_time_seconds", "groupId", "checkpoint_model_version_id")


def matches(head: Head) -> bool:
    """Tell by the four columns that are read."""
    return head.columns.issuperset(_COLUMNS)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    for table in tables(source, _COLUMNS):
        modelled = table.where(table.filled("checkpoint_model_version_id"), "no model")
        kept = modelled.where(modelled.filled("exec_time_seconds"), "no duration")
        yield Rows(
            at_ns=kept.stamps_ns("gmt_create"),
            function=source.functions.codes(kept.text("checkpoint_model_version_id")),
            duration_ns=kept.durations_ns("exec_time_seconds"),
            tenant=source.tenants.codes(kept.text("groupId")),
            place=kept.place,
        )
