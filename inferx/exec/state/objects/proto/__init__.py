"""The messages of the objects' service."""
