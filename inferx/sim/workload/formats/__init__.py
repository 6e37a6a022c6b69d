"""The file formats that are read: a new one is a module with `Format`'s names and a line here."""

from typing import cast

from inferx.sim.workload.formats import (
    azure_functions_2019,
    azure_functions_2021,
    azure_llm,
    burstgpt,
    canonical,
    gentd26,
    mooncake,
    openb,
)
from inferx.sim.workload.source import Format

__all__ = ["FORMATS"]

FORMATS: tuple[Format, ...] = cast(
    "tuple[Format, ...]",
    (
        canonical,
        azure_llm,
        mooncake,
        gentd26,
        azure_functions_2019,
        azure_functions_2021,
        burstgpt,
        openb,
    ),
)
"""Tried in this order; the first that matches reads the file."""
