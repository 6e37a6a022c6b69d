"""The three machines: router, scheduler, agent. Each is driven by exactly one task."""
