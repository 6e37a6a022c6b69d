"""Small files that are whole or as they were, for this user alone."""

import os
from pathlib import Path

__all__ = ["aside_of", "sync_folder", "write_whole"]


def aside_of(path: Path) -> Path:
    """Return where a file is written before it is whole: left there by a writer who was killed."""
    return path.with_name(f".{path.name}.new")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, make it durable and rename it: whole, or as it was.

    One writer of a file at a time: what is aside has one name, so that a writer who was killed
    leaves nothing that the next does not write over.

    Raises:
        OSError: It cannot be written.
    """
    aside = aside_of(path)
    # A link there is somebody else's, where others may write.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(aside, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
