"""The kernel: vocabulary, cluster state, the machines, the policy seam.

Pure: no IO, no clock, no environment, no global state. Time and randomness are arguments.
"""
