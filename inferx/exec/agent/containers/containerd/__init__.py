"""Pods as containers of containerd, driven through its native API."""
