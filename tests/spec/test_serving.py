"""Token speed, against the quotients it is derived from."""

import tomllib
from importlib.resources import files

import pytest

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB
from inferx.spec.catalogue import catalogue
from inferx.spec.functions import serving_for
from inferx.spec.template import load_template


def _function(weight_gib: float, gpus: int = 1) -> FunctionSpec:
    weight = round(weight_gib * GIB)
    return FunctionSpec(
        name="f",
        gpus=gpus,
        hbm_bytes=weight * 2,
        device_bytes=weight,
        host_bytes=1,
        weight_bytes=weight,
    )


def test_decode_of_an_8b_model_reads_its_weights_once_a_step() -> None:
    serving = serving_for(_function(15), "H100")
    read_ns = 15 * GIB / (3_350e9 * 0.7) * 1e9
    assert serving.decode_base_ns == pytest.approx(read_ns + 500_000, abs=1)
    assert serving.prefill_tokens_per_s == pytest.approx(989e12 * 0.4 / (15 * GIB), rel=1e-4)
    kv_ns = 1_000 * 131_072 / (3_350e9 * 0.7) * 1e9
    token_ns = 1e9 / serving.prefill_tokens_per_s
    assert serving.decode_per_request_ns == pytest.approx(kv_ns + token_ns, abs=2)


def test_more_memory_bandwidth_and_more_gpus_make_decode_faster() -> None:
    speeds = [serving_for(_function(15), gpu).decode_base_ns for gpu in ("L4", "A10G", "L40S")]
    assert speeds == sorted(speeds, reverse=True)
    one, two = (serving_for(_function(60, gpus), "H200") for gpus in (1, 2))
    assert 1.6 < one.decode_base_ns / two.decode_base_ns < 2


@pytest.mark.parametrize("gpu_type", list(catalogue().gpus))
def test_every_class_has_a_speed_on_every_gpu(gpu_type: str) -> None:
    for template in ("auto", "auto:diffusion"):
        for function in load_template(template).classes:
            serving = serving_for(function, gpu_type)
            assert min(serving.prefill_tokens_per_s, serving.decode_base_ns) > 0
            assert serving.decode_per_request_ns > 0


def test_a_gpu_of_unknown_speed_is_told() -> None:
    with pytest.raises(DescriptionError, match="h100: a GPU of unknown speed"):
        serving_for(_function(1), "h100")


def test_templates_state_the_speed_that_is_derived() -> None:
    raw = tomllib.loads(files("inferx.spec").joinpath("templates/models.toml").read_text())
    classes = {f.name: f for f in load_template("auto").classes + load_template("auto:7b").classes}
    for name, function in classes.items():
        serving = serving_for(function, "H100")
        assert raw["class"][name]["reference_h100"] == {
            "prefill_tokens_per_s": serving.prefill_tokens_per_s,
            "decode_base_us": round(serving.decode_base_ns / 1_000),
            "decode_per_request_us": round(serving.decode_per_request_ns / 1_000),
        }
