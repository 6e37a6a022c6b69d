"""Writes the protobuf modules that are checked in: `python -m inferx.exec.state.generate`."""

import sys
from pathlib import Path

__all__ = ["generate"]

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]


def generate(into: Path = ROOT) -> list[Path]:
    """Compile every `.proto` under this package into a tree like it; return what was written.

    Needs grpcio-tools, which only developers have.
    """
    from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]

    written: list[Path] = []
    for source in sorted(FOLDER.rglob("*.proto")):
        outs = [f"--python_out={into}", f"--pyi_out={into}"]
        if protoc.main(["protoc", f"-I{ROOT}", *outs, str(source)]) != 0:
            raise SystemExit(f"protoc refused {source}")
        stem = into / source.relative_to(ROOT).with_suffix("")
        written += [stem.with_name(f"{stem.name}_pb2.{ending}") for ending in ("py", "pyi")]
    return written


if __name__ == "__main__":
    for path in generate():
        sys.stdout.write(f"{path}\n")
