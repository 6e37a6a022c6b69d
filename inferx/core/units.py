"""Units. Every quantity in the kernel is an integer in one of these; the unit ends its name."""

__all__ = ["FOREVER_NS", "GIB", "MIB", "MILLI_PER_GPU", "NS_PER_MS", "NS_PER_S", "NS_PER_US"]

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
MIB = 1 << 20
GIB = 1 << 30
MILLI_PER_GPU = 1_000
FOREVER_NS = 1 << 62
"""Later than any deadline: 146 years. Arithmetic on it stays inside 64 bits."""
