"""Operating errors. A message says what, which id, and what was expected."""

from typing import Final

import msgspec

__all__ = [
    "UNDECODABLE",
    "DescriptionError",
    "InferXError",
    "LocalProtocolError",
    "PolicyError",
    "Terminated",
]

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises of bytes that are not what they should be: the second of text in them."""


class InferXError(Exception):
    """Base of every error that a user or an operator may see."""


class DescriptionError(InferXError):
    """A trace, cluster, function or profile file that cannot be used as it is."""


class LocalProtocolError(InferXError):
    """This side broke a machine's contract."""


class PolicyError(InferXError):
    """A policy proposed something impossible, or raised.

    Attributes:
        slot: Which policy slot: `placement`, `eviction`, ...
        check: The broken check, in words; from a small closed set.
    """

    def __init__(self, slot: str, check: str, proposal: object) -> None:
        """Keep what broke apart from the sentence that tells it; None proposes nothing."""
        tail = "" if proposal is None else f"; it proposed {proposal!r}"
        super().__init__(f"{slot} policy: {check}{tail}")
        self.slot = slot
        self.check = check


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM; like Ctrl-C, but nobody sits at a terminal."""
