"""The cluster's objects: tenants, namespaces, functions, policies, and what services register."""
