"""Injected faults: nodes that disappear, spot interruptions, starts that fail.

A fault file is TOML:

    start_failures = 0.01          # share of starts that fail
    [[fault]]
    node = "g6e.12xlarge-0"        # as `inferx replay` names it
    at_s = 600
    kind = "lost"                  # or "spot": a notice of 120 s, then lost
    back_after_s = 300             # optional: it joins again, empty
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from inferx.core.errors import DescriptionError
from inferx.core.types import NodeSpec

__all__ = ["Fault", "Faults", "load_faults"]

SPOT_NOTICE_S = 120.0
"""Source: AWS EC2 Spot, interruption notices come two minutes before."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that happens to one node."""

    node: str
    at_s: float
    kind: Literal["lost", "spot"]
    back_after_s: float = 0.0


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that goes wrong in a run."""

    start_failures: float = 0.0
    fault: tuple[Fault, ...] = ()


def load_faults(path: Path, nodes: tuple[NodeSpec, ...]) -> Faults:
    """Read a fault file; its nodes must be in the cluster."""
    if path.exists() and not path.is_file():
        raise DescriptionError(f"{path}: not a regular file; expected a TOML file of faults")
    try:
        faults = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Faults)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DescriptionError(f"{path}: {reason}") from error
    if not 0.0 <= faults.start_failures < 1.0:
        raise DescriptionError(
            f"{path}: start_failures: {faults.start_failures}; expected a share in [0, 1)"
        )
    names = {node.name for node in nodes}
    for fault in faults.fault:
        if fault.node not in names:
            raise DescriptionError(
                f"{path}: fault: node {fault.node!r} is not in the cluster;"
                f" expected one of {', '.join(sorted(names)[:4])}, ..."
            )
        if not (fault.at_s >= 0 and fault.back_after_s >= 0):
            raise DescriptionError(f"{path}: fault: at_s and back_after_s are expected >= 0")
    return faults
