"""The state service's messages."""
