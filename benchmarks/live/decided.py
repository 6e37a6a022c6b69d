"""How many decisions a scheduler has taken, by its own counters."""

from collections import Counter
from typing import Final
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["CARRIED_OUT", "DEFERRED", "decided"]

CARRIED_OUT: Final = ("leased", "placed", "evicted", "moved unasked")
"""Decisions about a pod that are carried out: to lease it to a gateway, to start it in a place, to
have it leave for another one, to move it without a request."""
DEFERRED: Final = "deferred"
"""And to let a function wait."""
_KINDS: Final = {"place": "placed", "evict": "placed", "defer": DEFERRED}
"""One of kind `evict` is where a pod is placed; those who leave for it are counted apart."""
_COUNTED: Final = {
    "podLeaseCnt_total": "leased",
    "inferx_scheduler_evictions_total": "evicted",
}
_BY_KIND: Final = "inferx_scheduler_decisions_total"


def decided(metrics: str) -> Counter[str]:
    """Return what was decided so far, read at the scheduler's address of metrics."""
    with urlopen(f"http://{metrics}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines(keepends=True)
    # Of the leases there is a line for each function on each node, and far more of others.
    mine = "".join(line for line in lines if line.startswith((_BY_KIND, *_COUNTED)))
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(mine):
        for sample in family.samples:
            if sample.name == _BY_KIND:
                found[_KINDS.get(sample.labels["kind"], "moved unasked")] += int(sample.value)
            elif sample.name in _COUNTED:
                found[_COUNTED[sample.name]] += int(sample.value)
    return found
