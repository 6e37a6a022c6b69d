"""Pod lists and node lists, in the columns of the openb trace. Times are not read.

Source: Alibaba clusterdata, cluster-trace-gpu-v2023.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferx.core.errors import DescriptionError
from inferx.core.units import MILLI_PER_GPU
from inferx.policy.packing.shapes import NodeState, PodShape

__all__ = ["NodeList", "PodList", "read_nodes", "read_pods"]

MAX_PODS_PER_NODE: Final = 1001
MAX_GPUS_PER_NODE: Final = 64
_MAX_VALUE: Final = 1 << 40
_POD_COLUMNS: Final = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
_NODE_COLUMNS: Final = ("sn", "cpu_milli", "memory_mib", "gpu", "model")


@dataclass(frozen=True, slots=True)
class PodList:
    """Pods in the order of the file."""

    name: str
    names: tuple[str, ...]
    shapes: tuple[PodShape, ...]


@dataclass(frozen=True, slots=True)
class NodeList:
    """Nodes in the order of the file, empty."""

    names: tuple[str, ...]
    states: tuple[NodeState, ...]

    @property
    def gpu_count(self) -> int:
        """GPUs of all nodes."""
        return sum(len(state.gpus) for state in self.states)


def read_pods(path: Path) -> PodList:
    """Read a pod list; its `gpu_spec` column may be absent. More than a whole GPU is a whole one.

    Raises:
        DescriptionError: A column is missing, or a cell is not what it should be.
    """
    names: list[str] = []
    shapes: list[PodShape] = []
    shared: dict[PodShape, PodShape] = {}
    for line, row in _rows(path, _POD_COLUMNS):
        at = _reader(path, line, row)
        gpus = at("num_gpu", MAX_GPUS_PER_NODE)
        milli = min(at("gpu_milli", _MAX_VALUE), MILLI_PER_GPU) if gpus else 0
        if gpus and not milli:
            raise _error(path, line, "gpu_milli 0", f"more than 0 for {gpus} GPUs")
        if gpus > 1 and milli < MILLI_PER_GPU:
            raise _error(path, line, f"gpu_milli {milli}", f"1000 for a pod of {gpus} GPUs")
        models = (row.get("gpu_spec") or "").strip() if gpus else ""
        shape = PodShape(at("cpu_milli"), at("memory_mib"), gpus, milli, models)
        names.append(row["name"])
        shapes.append(shared.setdefault(shape, shape))
    if not names:
        raise DescriptionError(f"{path}: no pods; expected at least one")
    _once(path, names)
    return PodList(path.name.removesuffix(".csv"), tuple(names), tuple(shapes))


def read_nodes(path: Path) -> NodeList:
    """Read a node list.

    Raises:
        DescriptionError: A column is missing, or a cell is not what it should be.
    """
    names: list[str] = []
    states: list[NodeState] = []
    shared: dict[NodeState, NodeState] = {}
    for line, row in _rows(path, _NODE_COLUMNS):
        at = _reader(path, line, row)
        gpus = (MILLI_PER_GPU,) * at("gpu", MAX_GPUS_PER_NODE)
        model = (row["model"] or "").strip()
        state = NodeState(
            model, at("cpu_milli"), at("memory_mib"), gpus, frozenset(), MAX_PODS_PER_NODE
        )
        names.append(row["sn"])
        states.append(shared.setdefault(state, state))
    if not any(state.gpus for state in states):
        raise DescriptionError(f"{path}: no GPUs; expected nodes with at least one")
    _once(path, names)
    return NodeList(tuple(names), tuple(states))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise _error(path, 1, f"no column {missing[0]}", f"columns {', '.join(columns)}")
            for row in reader:
                yield reader.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise DescriptionError(f"{path}: not a CSV file: {error}") from error


def _reader(path: Path, line: int, row: dict[str, str]) -> Callable[..., int]:
    def at(column: str, maximum: int = _MAX_VALUE) -> int:
        text = (row[column] or "").strip()
        try:
            value = float(text or 0)
        except ValueError:
            value = -1.0
        if not (0 <= value <= maximum and value == int(value)):
            raise _error(path, line, f"{column} {text!r}", f"a whole number from 0 to {maximum}")
        return int(value)

    return at


def _error(path: Path, line: int, found: str, expected: str) -> DescriptionError:
    return DescriptionError(f"{path}:{line}: {found}; expected {expected}")


def _once(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise DescriptionError(f"{path}: name {name!r} twice or empty; expected each name once")
        seen.add(name)
