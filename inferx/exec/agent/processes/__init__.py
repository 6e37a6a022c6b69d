"""Pods as plain processes of the host, and their snapshots by CRIU."""
