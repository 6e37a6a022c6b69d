"""Touches the world: what the machines decide, done to real processes and devices."""
