"""Devices in containers, as the Container Device Interface describes them.

The interface is a folder of files that a vendor's tool writes (`nvidia-ctk cdi generate`): devices
by name, and what each adds to a container. It is applied by whoever makes the container's spec, so
by us; nothing is left to hooks, which would run at a start and not at a restore.

Source: the CNCF's Container Device Interface specification, versions 0.3 to 1.0.
"""
