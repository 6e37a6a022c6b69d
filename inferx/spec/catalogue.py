"""Instance types and GPU models that ship with InferX, from `catalogue.toml`.

Each value there is marked: `read` in the source that the file names at its head, or `assumed`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import msgspec

from inferx.core.errors import DescriptionError
from inferx.spec.document import Document, closest, parse_toml
from inferx.spec.hardware import Hardware, read_hardware
from inferx.spec.table import Table, top_table

__all__ = [
    "Catalogue",
    "GpuModel",
    "InstanceType",
    "ServingModel",
    "catalogue",
    "gpu_model",
    "instance_type",
    "shipped",
]


class GpuModel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Speed of one GPU: memory bandwidth, and dense bf16 matrix arithmetic."""

    name: str
    hbm_bytes_per_s: int
    bf16_flop_per_s: int


class InstanceType(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One row of the catalogue; `basis` says of each key whether it was read or assumed."""

    name: str
    hardware: Hardware
    basis: Mapping[str, str]


class ServingModel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Constants that turn a model's size into its speed; see `inferx.spec.serving`."""

    prefill_efficiency: float
    decode_efficiency: float
    tensor_parallel_efficiency: float
    step_overhead_ns: int
    context_tokens: int
    kv_bytes_per_token: int
    kv_weight_bytes: int


class Catalogue(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything in `catalogue.toml`, by name, in the file's order."""

    instances: Mapping[str, InstanceType]
    gpus: Mapping[str, GpuModel]
    serving: ServingModel
    source: str
    date: str


def shipped(name: str) -> Document:
    """Parse a TOML file that ships in this package."""
    text = files("inferx.spec").joinpath(name).read_text(encoding="utf-8")
    return parse_toml(text, f"inferx/spec/{name}")


@cache
def catalogue() -> Catalogue:
    """Return the catalogue that ships with InferX."""
    top = top_table(shipped("catalogue.toml"))
    basis = _read_basis(top.table("basis"))
    gpus = {name: _read_gpu(name, table) for name, table in top.table("gpu").subtables()}
    instances: dict[str, InstanceType] = {}
    for name, table in top.table("instance").subtables():
        instances[name] = _read_instance(name, table, basis)
        if instances[name].hardware.gpu_type not in gpus:
            raise table.error("gpu_type", "an unknown GPU", f"one of {', '.join(gpus)}")
    serving = top.table("serving")
    result = Catalogue(
        instances=MappingProxyType(instances),
        gpus=MappingProxyType(gpus),
        serving=ServingModel(
            prefill_efficiency=serving.number("prefill_efficiency", maximum=1),
            decode_efficiency=serving.number("decode_efficiency", maximum=1),
            tensor_parallel_efficiency=serving.number("tensor_parallel_efficiency", maximum=1),
            step_overhead_ns=serving.duration("step_overhead"),
            context_tokens=serving.integer("context_tokens", minimum=1),
            kv_bytes_per_token=serving.integer("kv_bytes_per_token", minimum=1),
            kv_weight_bytes=serving.size("kv_weight", minimum=1),
        ),
        source=top.text("source"),
        date=top.text("date"),
    )
    serving.close()
    top.close()
    return result


def instance_type(name: str) -> InstanceType:
    """Return one instance type; an unknown name is told with the closest known one."""
    known = catalogue().instances
    if name not in known:
        near = closest(name, known)
        raise DescriptionError(
            f"{name}: an unknown instance type; expected one of {', '.join(known)}{near}"
        )
    return known[name]


def gpu_model(name: str) -> GpuModel:
    """Return one GPU model; an unknown name is told with the closest known one."""
    known = catalogue().gpus
    if name not in known:
        near = closest(name, known)
        raise DescriptionError(
            f"{name}: a GPU of unknown speed; expected one of {', '.join(known)}{near}"
        )
    return known[name]


def _read_basis(table: Table) -> dict[str, str]:
    basis = dict.fromkeys(table.texts("read"), "read")
    basis |= dict.fromkeys(table.texts("assumed"), "assumed")
    table.close()
    return basis


def _read_gpu(name: str, table: Table) -> GpuModel:
    model = GpuModel(
        name=name,
        hbm_bytes_per_s=round(table.number("hbm_gb_per_s", minimum=1) * 1e9),
        bf16_flop_per_s=round(table.number("bf16_tflops", minimum=1) * 1e12),
    )
    table.text("basis", choices=("read", "assumed"))
    table.close()
    return model


def _read_instance(name: str, table: Table, columns: Mapping[str, str]) -> InstanceType:
    keys = [key for key in table.values if key not in {"assumed", "links"}]
    keys += table.table("links").values
    basis: dict[str, str] = {}
    for key in keys:
        if key not in columns:
            raise table.error(key, "a key of no basis", f"one of {', '.join(columns)}")
        basis[key] = columns[key]
    basis |= dict.fromkeys(table.texts("assumed"), "assumed")
    instance = InstanceType(name=name, hardware=read_hardware(table), basis=MappingProxyType(basis))
    table.close()
    return instance
