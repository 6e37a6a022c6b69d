"""Touches the world: drives the kernel's machines on asyncio, with a real clock and real nodes."""
