"""A cluster's client: what the gateway serves besides inference, called from Python.

Everything goes through the gateway's HTTP; nothing of the cluster's own code is needed for it.
"""
