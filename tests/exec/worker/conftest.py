"""The command line as a user calls it."""

from command_line import call, good

__all__ = ["call", "good"]
