"""The state of a cluster that outlives its services: keys with revisions, leases, watches."""
