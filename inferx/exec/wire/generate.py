"""Writes the protobuf module that is checked in: `python -m inferx.exec.wire.generate`."""

import sys
from pathlib import Path

__all__ = ["generate"]

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile our `.proto` into a tree like this package's, and return what was written.

    Needs grpcio-tools, which only developers have.
    """
    from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]

    source = FOLDER / "wire.proto"
    arguments = ["protoc", f"-I{ROOT}", f"--python_out={into}", f"--pyi_out={into}", str(source)]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc refused {source}")
    folder = into / FOLDER.relative_to(ROOT)
    return [folder / "wire_pb2.py", folder / "wire_pb2.pyi"]


if __name__ == "__main__":
    for path in generate():
        sys.stdout.write(f"{path}\n")
