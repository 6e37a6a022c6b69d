"""How fast a pod serves tokens, derived from its function's size and its GPU.

Prefill is bound by arithmetic: a token costs 2 FLOP a parameter. A bf16 parameter is two bytes, so
a token costs one FLOP a weight byte; an fp8 parameter is one byte and needs 2 FLOP, at twice the
bf16 rate, so the same quotient holds. On GPUs without fp8 arithmetic it flatters fp8 models.

Decode is bound by memory: one step reads every weight once, and each concurrent request adds its
own KV cache and its own share of arithmetic. Constants are in the catalogue's `[serving]`.
"""

import math

import msgspec

from inferx.core.types import FunctionSpec
from inferx.core.units import NS_PER_S
from inferx.spec.catalogue import catalogue, gpu_model

__all__ = ["ServingSpec", "serving_for"]


class ServingSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Token speed of one pod, alone on its GPUs.

    A decode step of n concurrent requests takes `decode_base_ns + n * decode_per_request_ns` and
    gives each of them one token: the base reads the weights, each request reads its KV cache.
    """

    prefill_tokens_per_s: int
    decode_base_ns: int
    decode_per_request_ns: int


def serving_for(function: FunctionSpec, gpu_type: str) -> ServingSpec:
    """Return the speed of `function` on GPUs of `gpu_type`.

    Whole GPUs are assumed; the serving model slows co-located slices itself. A function that is
    no language model carries durations in its trace and needs none of this.

    Raises:
        DescriptionError: The catalogue has no speed for `gpu_type`.
    """
    model, constants = gpu_model(gpu_type), catalogue().serving
    gpus = float(function.gpus)
    if function.gpus > 1:
        gpus *= constants.tensor_parallel_efficiency
    flop_per_s = gpus * model.bf16_flop_per_s * constants.prefill_efficiency
    read_per_s = gpus * model.hbm_bytes_per_s * constants.decode_efficiency
    kv_bytes_per_token = constants.kv_bytes_per_token * math.sqrt(
        function.weight_bytes / constants.kv_weight_bytes
    )
    kv_ns = constants.context_tokens * kv_bytes_per_token / read_per_s * NS_PER_S
    token_ns = function.weight_bytes / flop_per_s * NS_PER_S
    return ServingSpec(
        prefill_tokens_per_s=max(1, round(NS_PER_S / token_ns)),
        decode_base_ns=round(function.weight_bytes / read_per_s * NS_PER_S)
        + constants.step_overhead_ns,
        decode_per_request_ns=max(1, round(kv_ns + token_ns)),
    )
