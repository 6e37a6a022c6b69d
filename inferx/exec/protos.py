"""Compiles our `.proto` files to the modules that are checked in, wherever they lie."""

import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ROOT", "compiled", "told"]

ROOT = Path(__file__).parents[2]
"""What the sources' paths count from; modules are imported by the same."""


def compiled(sources: Iterable[Path], into: Path) -> list[Path]:
    """Compile sources into a tree like this package's, and return what was written.

    Needs grpcio-tools, which only developers have.
    """
    from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]

    written: list[Path] = []
    for source in sources:
        outs = [f"--python_out={into}", f"--pyi_out={into}"]
        if protoc.main(["protoc", f"-I{ROOT}", *outs, str(source)]) != 0:
            raise SystemExit(f"protoc refused {source}")
        stem = into / source.relative_to(ROOT).with_suffix("")
        written += [stem.with_name(f"{stem.name}_pb2.{ending}") for ending in ("py", "pyi")]
    return written


def told(written: Iterable[Path]) -> None:
    """Print what was written, a line each."""
    for path in written:
        sys.stdout.write(f"{path}\n")
