"""Dump and restore times of a node, by size, tier and sandbox, beside `dd` of the same bytes.

    python -m studies.restore [--sizes 10MB,100MB,1GB,4GB] [--rounds 3] [--redraw]

Each sandbox is one `inferx agent bench`; containerd is one of the study's own. Writes
docs/results/restore.md and, with commands, commit, machine, date and seed,
docs/results/data/restore.json. Needs root, CRIU, and runc and containerd for their parts.
"""
