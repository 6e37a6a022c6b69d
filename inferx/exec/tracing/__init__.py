"""Traces: which request what was done belongs to, and how long each part of it took.

A span is recorded when it has ended, from times that somebody took anyway. Nothing here is known to
the kernel: what belongs together is found by the ids of requests, commands and pods.
"""
