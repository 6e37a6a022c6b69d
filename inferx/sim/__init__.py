"""A modelled world for the kernel: clock, links, devices, serving, workloads, results."""
