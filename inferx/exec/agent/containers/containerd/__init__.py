"""Pods as containers of containerd, driven through its native API."""

from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.containerd.snapshotter import ContainerdSnapshotter

__all__ = ["Client", "ContainerdSandbox", "ContainerdSnapshotter"]
