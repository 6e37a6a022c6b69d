"""Writes the protobuf module that is checked in: `python -m inferx.exec.wire.generate`."""

from pathlib import Path

from inferx.exec.protos import ROOT, compiled, told

__all__ = ["ROOT", "generate"]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile our `.proto` into a tree like this package's, and return what was written."""
    return compiled([Path(__file__).with_name("wire.proto")], into)


if __name__ == "__main__":
    told(generate())
