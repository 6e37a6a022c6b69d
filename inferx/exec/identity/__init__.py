"""Who asks, what they may do, how much of it, and the record of it."""
