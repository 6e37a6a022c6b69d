"""Keeps a policy's code from ending the process that asks it."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["without_exit"]


@contextmanager
def without_exit() -> Generator[None]:
    """Make `os._exit` raise SystemExit: it would end us without a word, and leave half a run.

    A policy that has taken hold of the function before is not kept from it.
    """

    def refuse(status: int) -> NoReturn:
        raise SystemExit(f"it called os._exit({status})")

    former, os._exit = os._exit, refuse
    try:
        yield
    finally:
        os._exit = former
