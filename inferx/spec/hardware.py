"""What one node is made of, read the same way from the catalogue and from a cluster file."""

import msgspec

from inferx.core.types import Links
from inferx.spec.table import Table

__all__ = ["MAX_GPUS", "Hardware", "read_hardware"]

MAX_GPUS = 8
"""GPUs of one node, and so of one pod. The reference has the same limit."""

_GB = 1_000_000_000
_GBIT = 125_000_000
_DRAM_GB_PER_S = 200.0


class Hardware(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The measurable part of a node. `usd_per_hour` is 0 when unknown."""

    gpu_type: str
    gpus: int
    hbm_bytes: int
    host_bytes: int
    nvme_bytes: int
    links: Links
    usd_per_hour: float


def read_hardware(table: Table, base: Hardware | None = None) -> Hardware:
    """Read the hardware keys of `table`; a key that is absent keeps `base`'s value.

    Without a base, `gpu_type`, `gpus`, `hbm_gib`, `host_gib`, `links.pcie_gpu_gb_per_s` and
    `links.network_gbps` must be there, and `links.nvme_read_gb_per_s` where there is NVMe.
    """
    gpus = table.integer("gpus", base.gpus if base else None, minimum=1, maximum=MAX_GPUS)
    nvme = table.number("nvme_gb", base.nvme_bytes / _GB if base else 0, maximum=1e6)
    links = table.table("links")
    hardware = Hardware(
        gpu_type=table.text("gpu_type", base.gpu_type if base else None),
        gpus=gpus,
        hbm_bytes=table.size("hbm", base.hbm_bytes if base else None, minimum=1),
        host_bytes=table.size("host", base.host_bytes if base else None, minimum=1),
        nvme_bytes=round(nvme * _GB),
        links=_read_links(links, base.links if base else None, gpus, has_nvme=nvme > 0),
        usd_per_hour=table.number("usd_per_hour", base.usd_per_hour if base else 0, maximum=1e4),
    )
    links.close()
    return hardware


def _read_links(table: Table, base: Links | None, gpus: int, *, has_nvme: bool) -> Links:
    def rate(key: str, default: float | None, *, minimum: float = 0.0) -> int:
        unit = _GBIT if key.endswith("_gbps") else _GB
        name = key.removesuffix("_gb_per_s").removesuffix("_gbps")
        fallback = getattr(base, name) / unit if base else default
        return round(table.number(key, fallback, minimum=minimum, maximum=100_000) * unit)

    pcie_gpu = rate("pcie_gpu_gb_per_s", None, minimum=0.001)
    nvme_read = rate("nvme_read_gb_per_s", None if has_nvme else 0)
    return Links(
        pcie_gpu=pcie_gpu,
        pcie_root=rate("pcie_root_gb_per_s", pcie_gpu * gpus / _GB, minimum=0.001),
        dram=rate("dram_gb_per_s", _DRAM_GB_PER_S, minimum=0.001),
        nvme_read=nvme_read,
        # A local SSD of these machines writes at about half the speed it reads.
        nvme_write=rate("nvme_write_gb_per_s", nvme_read / 2 / _GB),
        ebs=rate("ebs_gb_per_s", 0),
        network=rate("network_gbps", None, minimum=0.001),
    )
