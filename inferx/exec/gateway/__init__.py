"""The gateway as a service: requests in over HTTP, to pods that it leases from the scheduler."""
