"""The scheduler as a service: who leads, what it is told, and lines to nodes and gateways."""
