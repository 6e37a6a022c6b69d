"""Policies: pure decisions, one small file each."""
