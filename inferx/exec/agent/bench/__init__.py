"""Measures how fast this node starts, dumps and restores pods, beside the floor of each tier.

The pods are `inferx worker` of declared sizes, in the node's own sandbox; the floor is `dd` of the
same bytes from and to the same tier, in the same run and with the page cache in the same state.
"""

from inferx.exec.agent.bench.fit import Line, fit_line
from inferx.exec.agent.bench.opening import opened
from inferx.exec.agent.bench.place import temporary_config
from inferx.exec.agent.bench.plan import Plan, Subject, require_memory
from inferx.exec.agent.bench.results import About, Clones, Floor, Results, Round, Step, medians
from inferx.exec.agent.bench.rounds import Bench

__all__ = [
    "About",
    "Bench",
    "Clones",
    "Floor",
    "Line",
    "Plan",
    "Results",
    "Round",
    "Step",
    "Subject",
    "fit_line",
    "medians",
    "opened",
    "require_memory",
    "temporary_config",
]
