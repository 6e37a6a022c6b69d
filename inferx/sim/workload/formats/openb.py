"""Alibaba GPU cluster 2023 (openb) pod lists, read as requests: a pod is one request of its class.

Arrival = `creation_time`, duration = `deletion_time` - `creation_time`, function = the pod's class
of GPU count, milli per GPU and set of GPU models: `1x460m`, `2x1000m:A10|T4`, `cpu`. Pods
without one of the two times are dropped and counted. `gpu_spec` may be missing, blank, or name a
model twice. Rows are sorted by arrival.

Source: Weng et al., "Beware of Fragmentation", ATC 2023; alibaba/clusterdata,
cluster-trace-gpu-v2023.
"""

from collections.abc import Iterator

import pyarrow as pa

from inferx.sim.workload.source import Head, Rows, Source
from inferx.sim.workload.table import joined, tables
from inferx.sim.workload.trace import SHORTEST_NS

NAME = "openb"
EXPECTS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,...,creation_time,deletion_time,..."
ORDERED = False
COMPANION = False
_CLASS = ("name", "num_gpu", "gpu_milli")
_TIMES = ("creation_time", "deletion_time")


def matches(head: Head) -> bool:
    """Tell by the columns of a pod's size."""
    return head.columns.issuperset(_CLASS)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    columns = source.head().columns
    if not columns.issuperset(_TIMES):
        what = "a pod list without times"
        raise source.error(1, f"{what}; expected columns creation_time and deletion_time")
    spec = ("gpu_spec",) if "gpu_spec" in columns else ()
    source.tenants.code("default")
    for table in tables(source, (*_CLASS, *_TIMES, *spec)):
        created = table.where(table.filled("creation_time"), "no creation time")
        kept = created.where(created.filled("deletion_time"), "no deletion time")
        at_ns = kept.seconds_ns("creation_time")
        duration_ns = kept.seconds_ns("deletion_time") - at_ns
        if (duration_ns < 0).any():
            row = int((duration_ns < 0).argmax())
            raise kept.error(row, "deletion_time is before creation_time; expected it later")
        duration_ns[duration_ns == 0] = SHORTEST_NS
        size = [pa.array(kept.tokens(name)).cast(pa.string()) for name in _CLASS[1:]]
        models = [kept.text(name) for name in spec]
        yield Rows(
            at_ns=at_ns,
            function=source.functions.codes(joined([*size, *models], ","), _class_name),
            duration_ns=duration_ns,
            place=kept.place,
        )


def _class_name(key: str) -> str:
    gpus, milli, *models = key.split(",")
    if gpus == "0":
        return "cpu"
    allowed = sorted({model.strip() for model in "".join(models).split("|")} - {""})
    return f"{gpus}x{milli}m" + (f":{'|'.join(allowed)}" if allowed else "")
