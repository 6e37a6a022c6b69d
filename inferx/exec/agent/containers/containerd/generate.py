"""Writes the protobuf modules that are checked in.

`python -m inferx.exec.agent.containers.containerd.generate`
"""

from pathlib import Path

from inferx.exec.protos import ROOT, compiled, told

__all__ = ["ROOT", "generate"]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile our `.proto` into a tree like this package's, and return what was written."""
    return compiled([Path(__file__).with_name("containerd.proto")], into)


if __name__ == "__main__":
    told(generate())
