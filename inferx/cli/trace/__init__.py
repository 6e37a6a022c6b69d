"""`inferx trace`: look at request traces, make them and change them."""

import click

from inferx.cli.trace.changing import convert, transform
from inferx.cli.trace.looking import info, reuse
from inferx.cli.trace.making import servegen, synth

__all__ = ["trace"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def trace() -> None:
    """Look at, make and change request traces.

    Reads InferX's own Parquet files, Azure LLM inference, Azure Functions 2019 and 2021, Mooncake,
    BurstGPT, Alibaba GenAI 2026 and Alibaba openb pod lists, plain or gzip. The format is found
    from the content.
    """


for _command in (info, reuse, convert, synth, servegen, transform):
    trace.add_command(_command)
