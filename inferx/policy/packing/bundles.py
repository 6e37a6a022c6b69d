"""A bundle with a packing rule in its placement slot; the rest is `default`.

inferx replay ... --policy inferx.policy.packing.bundles:bundle --set rule=worst-fit
"""

from dataclasses import replace
from typing import cast

from inferx.policy import PlacementPolicy, PolicyBundle, default
from inferx.policy.packing import rules

__all__ = ["bundle"]


def bundle(rule: str = "fragmentation-gradient-descent") -> PolicyBundle:
    """Return the bundle.

    Raises:
        ValueError: There is no such rule.
    """
    known = rules()
    if rule not in known:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(known)}")
    placement = cast("PlacementPolicy", known[rule]())
    return replace(default.bundle(), name="packing", placement=placement)
