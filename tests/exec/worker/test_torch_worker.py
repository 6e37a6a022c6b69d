"""The worker that computes: the same bytes for the same weights and prompt, through every way."""

import hashlib

import pytest
import torch
from worker_process import worker

from inferx.exec.worker.torch_model import (
    BEGIN,
    HEAD_DIM,
    Transformer,
    shape_within,
    tensors_of,
)
from inferx.exec.worker.torch_weights import numbers

MIB = 1 << 20
OPTIONS = ("--engine=torch", "--kv=16MiB", "--slots=2")


def test_two_starts_and_a_quiesce_give_the_same_bytes(tmp_path, good):
    file = tmp_path / "w.bin"
    good("worker", "weights", file, "--engine", "torch", "--bytes", "8MiB", "--seed", 3)
    content = file.read_bytes()
    with worker(*OPTIONS, f"--weights={file}") as one:
        text = one.complete(ignore_eos=True)
        assert len(text) == 12
        assert one.complete(ignore_eos=True) == text
        assert one.complete("Say something else.", ignore_eos=True) != text
        told = one.get("/checksum")
        held = one.resident_bytes
        kv = one.get("/inferx/state")["kv_bytes"]
        assert 15 * MIB < kv <= 16 * MIB
        one.post("/inferx/quiesce")
        assert held - one.resident_bytes > 0.9 * kv
        one.post("/inferx/wake")
        assert one.complete(ignore_eos=True) == text
        answer = one.post("/v1/completions", {"prompt": "Say something.", "max_tokens": 200})
        usage = answer["usage"]
        assert usage["prompt_tokens"] == len("Say something.")
        reason = "length" if usage["completion_tokens"] == 200 else "stop"
        assert answer["choices"][0]["finish_reason"] == reason
        [row] = one.post("/v1/embeddings", {"input": "x"})["data"]
        assert sum(value * value for value in row["embedding"]) == pytest.approx(1.0, rel=1e-3)
        status, error = one.ask("POST", "/v1/completions", {"prompt": "x" * 5000})
        assert (status, error["error"]["code"]) == (400, "context_length_exceeded")
    weights = content[content.index(b"\n") + 1 :]
    assert told == {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    with worker(*OPTIONS, "--weights=8MiB", "--seed=3") as one:
        assert one.get("/checksum") == told
        assert one.complete(ignore_eos=True) == text


def test_steps_with_a_cache_find_what_one_pass_finds():
    torch.set_num_threads(1)
    shape = shape_within(4 * MIB)
    flat = torch.frombuffer(bytearray(b"".join(numbers(shape, 1))), dtype=torch.float32)
    model = Transformer(shape, flat)

    def cache():
        return torch.ones(2, shape.layers, shape.heads, 64, HEAD_DIM)

    tokens, stepped = [BEGIN, *b"abc"], cache()
    found = model.next_token(tokens, 0, *stepped, endless=True)
    for _ in range(20):
        tokens.append(found)
        whole = model.next_token(tokens, 0, *cache(), endless=True)
        found = model.next_token([found], len(tokens) - 1, *stepped, endless=True)
        assert found == whole
        assert 32 <= found < 127


def test_a_model_is_as_large_as_it_may_be():
    for size in (8 * MIB, 60 * MIB, 64 * MIB, 512 * MIB, 4 << 30):
        shape = shape_within(size)
        assert 0.6 * size < shape.weight_bytes <= size
        assert shape.width % HEAD_DIM == 0
    assert shape_within(512 * MIB).parameters == pytest.approx(134e6, rel=0.01)


def test_activations_keep_their_size():
    shape = shape_within(4 * MIB)
    for one, raw in zip(tensors_of(shape), numbers(shape, 1), strict=True):
        values = torch.frombuffer(bytearray(raw), dtype=torch.float32)
        assert float(values.std()) == pytest.approx(one.deviation, rel=0.02)


def test_a_short_file_of_weights_is_one_line(call, tmp_path, good):
    file = tmp_path / "w.bin"
    good("worker", "weights", file, "--engine", "torch", "--bytes", "3MiB")
    content = file.read_bytes()
    file.write_bytes(content[:-4])
    size = len(content) - content.index(b"\n") - 1
    status, _, err = call("worker", "--port", 0, "--engine", "torch", "--weights", file)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"inferx: {file}: {size - 4} bytes of weights; expected {size} for 4 la")
