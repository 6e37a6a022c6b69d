"""Sizes as a command line says them: `1GiB`, `256MiB`, `4096`. Units are those of descriptions."""

import re
from typing import Final

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB, MIB
from inferx.spec.table import MAX_BYTES

__all__ = ["parse_bytes"]

_UNITS: Final = {
    "": 1, "b": 1, "bytes": 1,
    "kib": 1 << 10, "mib": MIB, "gib": GIB, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")


def parse_bytes(what: str, text: str) -> int:
    """Return a size in bytes; `gib` is 2^30 of them, `gb` is 10^9, and case does not matter.

    Raises:
        DescriptionError: The text is no size, not a whole number of bytes, or above 1 PiB.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if not found or unit is None:
        raise DescriptionError(f"{what} {text!r}: expected a size such as 1GiB, 256MiB or 4096")
    whole, _, part = found[1].partition(".")
    scale: int = 10 ** len(part)
    size, rest = divmod(int(whole + part) * unit, scale)
    if rest:
        raise DescriptionError(f"{what} {text!r}: expected a whole number of bytes")
    if size > MAX_BYTES:
        raise DescriptionError(f"{what} {text!r}: expected at most 1PiB, {MAX_BYTES} bytes")
    return size
