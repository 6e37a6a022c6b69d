"""Request traces: one array layout, readers, generators, transforms."""
