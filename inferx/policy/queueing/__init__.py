"""Queueing: whether a request is let in, and whose turn it is."""
