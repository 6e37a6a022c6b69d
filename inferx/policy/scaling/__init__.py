"""Scaling: how many pods a function should have."""
