"""Writes the protobuf modules that are checked in.

`python -m inferx.exec.agent.containers.containerd.generate`
"""

import sys
from pathlib import Path

__all__ = ["generate"]

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[3]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile our `.proto` into a tree like this package's, and return what was written.

    Needs grpcio-tools, which only developers have.
    """
    from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]

    source = FOLDER / "containerd.proto"
    arguments = ["protoc", f"-I{ROOT}", f"--python_out={into}", f"--pyi_out={into}", str(source)]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc refused {source}")
    folder = into / FOLDER.relative_to(ROOT)
    return [folder / "containerd_pb2.py", folder / "containerd_pb2.pyi"]


if __name__ == "__main__":
    for path in generate():
        sys.stdout.write(f"{path}\n")
