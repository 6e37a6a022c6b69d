"""What pods write to their standard output and error: kept within bounds, and read."""
