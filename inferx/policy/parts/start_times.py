"""How soon each function could be ready, for rules that ask it of all functions at once. Ours."""

from dataclasses import dataclass, field

import numpy as np

from inferx.policy import F64, NS_PER_S, ClusterView, FunctionId

__all__ = ["StartTimes"]


@dataclass(slots=True)
class StartTimes:
    """Seconds to ready on the best node, a few functions refreshed with each look.

    A look at every function would take longer than the rules that use it: the figure may be as old
    as it takes to go round all functions.
    """

    refresh: int = 16
    _start_s: F64 = field(default_factory=lambda: np.zeros(0))
    _next: int = 0

    def look(self, view: ClusterView) -> F64:
        """Return the seconds to ready of each function. Shape (functions,); not to be changed."""
        functions = len(view.functions.specs)
        known = len(self._start_s)
        if known < functions:
            self._start_s = np.append(self._start_s, np.zeros(functions - known))
            rows = list(range(known, functions))
        else:
            rows = [(self._next + i) % functions for i in range(min(self.refresh, functions))]
            self._next = (self._next + len(rows)) % max(1, functions)
        for f in rows:
            self._start_s[f] = view.node_restore_ns(FunctionId(f)).min() / NS_PER_S
        return self._start_s
