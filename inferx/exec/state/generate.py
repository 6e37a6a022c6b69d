"""Writes the protobuf modules that are checked in: `python -m inferx.exec.state.generate`."""

from pathlib import Path

from inferx.exec.protos import ROOT, compiled, told

__all__ = ["ROOT", "generate"]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile every `.proto` under this package into a tree like it; return what was written."""
    return compiled(sorted(Path(__file__).parent.rglob("*.proto")), into)


if __name__ == "__main__":
    told(generate())
