"""Pods as containers: of containerd through its own API, or of runc alone."""
