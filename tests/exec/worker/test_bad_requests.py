"""What a worker refuses: one line in the API's shape, or one line on stderr."""

import asyncio
import socket
import subprocess

import pytest
from aiohttp.test_utils import TestClient, TestServer
from worker_process import INFERX, worker

from inferx.exec.worker.handlers import Handlers
from inferx.exec.worker.paced import CONTEXT, PacedEngine, PacedShape
from inferx.exec.worker.slots import Slots

MESSAGES = [{"role": "user", "content": "x"}]
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
REFUSED = [
    (CHAT, "{", 400, "the body is not JSON: Input data was truncated"),
    (CHAT, b"\xff", 400, "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
    (CHAT, '{"tools": ' + "[" * 100_000, 400, "the body is not JSON"),
    (CHAT, [], 400, "Expected `object`, got `array`"),
    (CHAT, {}, 400, "Object missing required field `messages`"),
    (CHAT, {"messages": []}, 400, "messages: Expected `array` of length >= 1"),
    (CHAT, {"messages": [{"role": "me"}]}, 400, "messages[0].role: Invalid enum value 'me'"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "a message part of type 'image_url'; expected text",
    ),
    (CHAT, {"messages": MESSAGES, "n": 2}, 400, "n is 2; expected 1"),
    (CHAT, {"messages": MESSAGES, "logprobs": True}, 400, "logprobs are not computed here"),
    (CHAT, {"messages": MESSAGES, "max_tokens": 0}, 400, "max_tokens: Expected `int` >= 1"),
    (CHAT, {"messages": MESSAGES, "model": "y"}, 404, "no model 'y' here; expected 'm'"),
    (TEXT, {"prompt": ["a", "b"]}, 400, "prompt: Expected `array` of length <= 1"),
    (TEXT, {"prompt": 3}, 400, "prompt: Expected `str | array`, got `int`"),
    (TEXT, {"prompt": "x", "echo": True}, 400, "echo is not done here"),
    (TEXT, {"prompt": "x", "stop": ["y"] * 17}, 400, "stop: Expected `array` of length <= 16"),
    (
        TEXT,
        {"prompt": "x y", "max_tokens": CONTEXT},
        400,
        f"this model's context is {CONTEXT} tokens; the prompt has 2 and {CONTEXT} are to be",
    ),
    (TEXT, "x" * (9 << 20), 413, "POST /v1/completions: Request Entity Too Large"),
    (EMBED, {"input": []}, 400, "input: Expected `array` of length >= 1"),
    (EMBED, {"input": "x", "model": "y"}, 404, "no model 'y' here"),
    ("/v1/nothing", {}, 404, "POST /v1/nothing: Not Found"),
    ("/health", {}, 405, "POST /health: Method Not Allowed"),
    ("/inferx/quiesce?timeout_s=nan", {}, 400, "timeout_s=nan; expected seconds, from 0 to 3600"),
    ("/inferx/quiesce?timeout_s=x", {}, 400, "timeout_s=x; expected seconds, from 0 to 3600"),
]


def engine():
    return PacedEngine(
        PacedShape(
            weights=None,
            weight_bytes=4096,
            kv_bytes=0,
            tokens_per_s=1000.0,
            ttft_s=0.0,
            seed=0,
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def served():
    with worker("--model=m", "--weights=1MiB") as one:
        yield one


@pytest.mark.parametrize(("path", "body", "status", "message"), REFUSED)
def test_a_bad_request_is_told_in_one_line(served, path, body, status, message):
    found, answer = served.ask("POST", path, body)
    assert found == status
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith(message)
    assert "\n" not in error["message"]
    assert served.complete(max_tokens=1)


def test_before_it_is_loaded_and_while_it_ends_nothing_is_served():
    async def run():
        handlers = Handlers("m", engine(), Slots(1, 1))
        async with TestClient(TestServer(handlers.application())) as client:

            async def ask():
                answers = []
                for path in ("/health", "/v1/models", "/checksum"):
                    async with client.get(path) as answer:
                        answers.append(answer.status)
                for path in ("/v1/completions", "/inferx/quiesce", "/inferx/wake"):
                    async with client.post(path, json={"prompt": "x"}) as answer:
                        answers.append(answer.status)
                return answers

            assert await ask() == [503, 200, 503, 503, 503, 503]
            await handlers.load()
            assert await ask() == [200, 200, 200, 200, 200, 200]
            await handlers.drain(0.0)
            assert await ask() == [503, 200, 200, 503, 200, 200]

    asyncio.run(run())


def test_where_any_name_is_taken_it_is_answered_by_that_and_texts_may_be_numbers():
    async def run():
        handlers = Handlers("m", engine(), Slots(1, 1), any_model=True)
        async with TestClient(TestServer(handlers.application())) as client:
            await handlers.load()

            async def ask(path, **body):
                async with client.post(path, json=body) as answer:
                    assert answer.status == 200
                    return await answer.json()

            texts = {"max_tokens": "3", "temperature": "0", "stream": "false"}
            told = await ask(TEXT, model="acme/Large", prompt="x", **texts)
            assert told["model"] == "acme/Large"
            assert told["usage"]["completion_tokens"] == 3
            assert (await ask(TEXT, prompt="x"))["model"] == "m"
            assert (await ask(EMBED, model="other", input="x"))["model"] == "other"

    asyncio.run(run())


def test_who_waits_behind_a_quiesce_is_turned_away_at_the_end():
    async def run():
        slots = Slots(1, 1)
        handlers = Handlers("m", engine(), slots)
        async with TestClient(TestServer(handlers.application())) as client:
            await handlers.load()
            await client.post("/inferx/quiesce")
            waits = asyncio.create_task(client.post("/v1/completions", json={"prompt": "x"}))
            while not slots.waiting:  # noqa: ASYNC110  # It comes through a socket.
                await asyncio.sleep(0.001)
            await handlers.drain(0.0)
            assert (await waits).status == 503

    asyncio.run(run())


def test_bad_options_are_one_line(call, tmp_path):
    short = tmp_path / "short.bin"
    short.write_bytes(b"x" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            (["--weights", "1XB"], "--weights '1XB': expected a size such as 1GiB, 256MiB or 4096"),
            (
                ["--weights", "none.bin"],
                "--weights none.bin: no such file; expected one",
            ),
            (
                ["--weights", "1024TiB"],
                f"{1 << 50} bytes of host memory: Cannot allocate memory",
            ),
            (["--ttft-ms", "nan"], "--ttft-ms nan: expected a number"),
            (["--request-log", tmp_path / "no" / "x"], f"{tmp_path}/no/x: No such file"),
            (["--kv", "much"], "--kv 'much': expected a size such as"),
            (["--engine", "torch", "--weights", short], f"{short}: no weights of a torch worker"),
            (["--engine", "torch", "--weights", "1KiB"], "a torch model of 1024 bytes: expected"),
            (
                ["--engine", "torch", "--weights", "4MiB", "--kv", "1MiB"],
                "a KV cache of 1048576 bytes: 8 slots of this model need at least",
            ),
            (
                ["--device", "cuda"],
                "device cuda: torch finds no GPU; expected one",
            ),
            (["--port", port], f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:"),
            (["weights", tmp_path, "--bytes", "1MiB"], f"{tmp_path}: a folder; expected the name"),
            (["weights", tmp_path / "no" / "w", "--bytes", "1"], f"{tmp_path}/no/w: No such file"),
        ]
        for words, message in cases:
            options = words if words[0] == "weights" else ["--port", 0, *words]
            status, _, err = call("worker", *options)
            assert status == 2, words
            assert err.startswith(f"inferx: {message}"), err
            assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "words", "message"),
    [
        ("aiohttp", [], "expected pip install 'inferx[exec]'"),
        ("torch", ["--engine", "torch"], "expected pip install 'inferx[torch]'"),
        ("torch", ["--device", "cuda"], "expected pip install 'inferx[torch]'"),
        (
            "torch",
            ["weights", "w", "--bytes", "4MiB", "--engine", "torch"],
            "expected pip install 'inferx[torch]'",
        ),
    ],
)
def test_what_is_not_installed_is_one_line(missing, words, message):
    options = words if words[:1] == ["weights"] else ["--port", "0", *words]
    code = f"import sys; sys.modules[{missing!r}] = None; {INFERX[2]}"
    done = subprocess.run(
        [*INFERX[:2], code, "worker", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(message)
    assert done.stderr.count("\n") == 1
