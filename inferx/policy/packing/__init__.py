"""Packing: which node and which GPUs take one more pod, so that later pods still fit.

Rules are found, not registered: a file of this package with a dictionary `RULES`, from a name to
what makes the rule. The six rules of the published comparison are in `published`, for their scores
are whole numbers made for one cluster's sizes: they are replayed, not deployed.
"""

import importlib
import pkgutil
from collections.abc import Callable

from inferx.policy.packing.case import PackingRule

__all__ = ["rules"]


def rules() -> dict[str, Callable[[], PackingRule]]:
    """Return what makes each rule, by name, in the order of the names."""
    found: dict[str, Callable[[], PackingRule]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        found.update(getattr(importlib.import_module(f"{__name__}.{module}"), "RULES", {}))
    return dict(sorted(found.items()))
