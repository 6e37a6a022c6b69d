"""Which shared libraries this process has loaded, and from where: who really answers."""

from pathlib import Path

__all__ = ["library_path"]


def library_path(name: str) -> str:
    """Return the file that a library of this name was loaded from; empty where there is none.

    Args:
        name: How the file's name begins, as in `libcuda.so`.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, slash, path = line.partition("/")
        if slash and path.rpartition("/")[2].startswith(name):
            return slash + path
    return ""
