"""Folders that are written aside and then put in their place: whole, or not there at all."""

import shutil
import tempfile
from pathlib import Path

__all__ = ["make_aside", "put_in_place"]


def make_aside(path: Path) -> Path:
    """Return a new private folder beside `path`, to be filled and put in its place."""
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


def put_in_place(made: Path, path: Path) -> None:
    """Rename `made` to `path`; what was there goes only once the new one is in its place."""
    if not path.exists():
        made.rename(path)
        return
    former = make_aside(path)
    path.rename(former / "former")
    made.rename(path)
    shutil.rmtree(former)
