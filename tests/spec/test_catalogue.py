"""The catalogue that ships: complete, marked, and as the table it was read from."""

import tomllib
from importlib.resources import files

import pytest

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB
from inferx.spec.catalogue import catalogue, gpu_model, instance_type


def test_every_value_of_every_instance_says_its_basis() -> None:
    raw = tomllib.loads(files("inferx.spec").joinpath("catalogue.toml").read_text())
    assert catalogue().date == "2026-07-20"
    assert len(catalogue().instances) == 20
    for name, entry in raw["instance"].items():
        keys = {*entry, *entry["links"]} - {"links", "assumed"}
        basis = instance_type(name).basis
        assert set(basis) == keys
        assert set(basis.values()) == {"read", "assumed"}
        assert basis["gpus"] == "read"
        assert basis["nvme_read_gb_per_s"] == "assumed"
    assert all(entry["basis"] in {"read", "assumed"} for entry in raw["gpu"].values())


def test_an_instance_is_read_in_the_kernels_units() -> None:
    hardware = instance_type("g6e.12xlarge").hardware
    assert (hardware.gpus, hardware.gpu_type) == (4, "L40S")
    assert hardware.hbm_bytes == round(44.7 * GIB)
    assert hardware.host_bytes == 384 * GIB
    assert hardware.nvme_bytes == 3_800 * 10**9
    assert hardware.links.network == 12_500_000_000
    assert hardware.links.ebs == 2_500_000_000
    assert hardware.links.nvme_write * 2 == hardware.links.nvme_read
    assert hardware.usd_per_hour == 10.49


def test_an_unknown_price_is_absent() -> None:
    assert instance_type("p5e.48xlarge").hardware.usd_per_hour == 0
    assert "usd_per_hour" not in instance_type("p5e.48xlarge").basis


@pytest.mark.parametrize("lookup", [instance_type, gpu_model])
def test_an_unknown_name_is_told_with_the_closest(lookup) -> None:
    word, near = ("g6e.12xlarg", "g6e.12xlarge") if lookup is instance_type else ("L40", "L40S")
    with pytest.raises(DescriptionError, match=rf"^{word}: .*expected.*did you mean {near}\?$"):
        lookup(word)
