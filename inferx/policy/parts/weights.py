"""Weights of tenants, as a setting tells them."""

import math

__all__ = ["parse_weights"]


def parse_weights(text: str) -> dict[str, float]:
    """Parse `tenant:weight,tenant:weight`; a tenant that is not named has weight 1.

    Raises:
        ValueError: A part is not of that form, a tenant comes twice, or a weight is not above 0.
    """
    weights: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        tenant, _, weight = part.rpartition(":")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not tenant or tenant in weights or not 0 < value < math.inf:
            raise ValueError(f"weights has {part!r}; expected TENANT:WEIGHT once, above 0")
        weights[tenant] = value
    return weights
