"""Azure LLM inference traces, 2023 and 2024: one stamp and two token counts a request.

One model, so one function. A request without output tokens is dropped and counted.

Source: Patel et al., "Splitwise", ISCA 2024; Azure/AzurePublicDataset (CC-BY-4.0).
"""

from collections.abc import Iterator

import numpy as np

from inferx.sim.workload.source import Head, Rows, Source
from inferx.sim.workload.table import tables

NAME = "azure-llm"
EXPECTS = "TIMESTAMP,ContextTokens,GeneratedTokens"
ORDERED = True
COMPANION = False
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def matches(head: Head) -> bool:
    """Tell by the three columns."""
    return head.columns.issuperset(_COLUMNS)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    source.functions.code("azure-llm")
    source.tenants.code("default")
    for table in tables(source, _COLUMNS):
        kept = table.where(table.tokens("GeneratedTokens") > 0, "no output tokens")
        yield Rows(
            at_ns=kept.stamps_ns("TIMESTAMP"),
            function=np.zeros(len(kept), np.int32),
            input_tokens=kept.tokens("ContextTokens"),
            output_tokens=kept.tokens("GeneratedTokens"),
            place=kept.place,
        )
