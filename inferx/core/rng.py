"""Named random streams: one root seed, one independent Philox stream a name.

A draw by one subsystem never moves another's stream, so policies can be compared on common
random numbers. The name's CRC-32 is the spawn key: stable across machines and hash seeds.
"""

from zlib import crc32

import numpy as np
from numpy.random import Generator

__all__ = ["stream"]


def stream(seed: int, name: str) -> Generator:
    """Return the generator named `name` under `seed`."""
    key = np.random.SeedSequence(seed, spawn_key=(crc32(name.encode()),))
    return Generator(np.random.Philox(key))
