"""Eviction: which pods leave for one that needs their room."""
