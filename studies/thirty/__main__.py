"""Has thirty functions served on two declared GPUs, cold and warm, by two clients; takes pictures.

    python -m studies.thirty

Needs root, curl, and Debian's chromium and chromium-driver. It runs what README says: `inferx up
--gpus 2x80GiB --stand-in-workers`, `inferx apply`, then streams from every function with the real
`openai` client, all at once, three rounds; then with `curl -N`, one after another. Each answer must
be that of a worker which was never suspended. Meanwhile a browser looks at the gateway's page.

Writes docs/results/thirty.md, docs/results/data/thirty.json and docs/pictures/page-*.png.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from benchmarks.about import DATA, ROOT, about, program
from benchmarks.gateway.servers import free_port
from benchmarks.live.services import service
from studies.thirty.document import document
from studies.thirty.page import Page

FUNCTIONS, ROUNDS, TOKENS = 30, 3, 24
GPUS = "2x80GiB"
SIZES_MB = (8_000, 14_000, 20_000, 36_000)
"""GPU memory of the functions, in turn: together several times what there is."""
WAIT_S = 120.0
INFERX = (sys.executable, "-m", "inferx")


def function(number: int) -> dict[str, Any]:
    """Return a function as its author would write it for a GPU."""
    size = SIZES_MB[number % len(SIZES_MB)]
    spec = {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", f"m{number:02}"],
        "resources": {
            "CPU": 1000,
            "Mem": 2 * size,
            "GPU": {"Type": "Any", "Count": 1, "vRam": size},
        },
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"queue_timeout": WAIT_S, "parallel": 8, "scalein_timeout": 0.2}},
        "inferx": {"milli_gpu": 200},
    }
    return {
        "type": "function",
        "tenant": "public",
        "namespace": "demo",
        "name": f"m{number:02}",
        "object": {"spec": spec},
    }


def prompt_of(name: str) -> str:
    """Return a prompt that is one function's own."""
    return f"What does {name} say?"


@contextmanager
def never_suspended() -> Iterator[str]:
    """Run one worker by hand; yields its address."""
    port = free_port()
    line = (*INFERX, "worker", "--model", "any", "--weights", "1MiB", "--tokens-per-s", "100000")
    process = subprocess.Popen((*line, "--port", str(port)), stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + WAIT_S
        while not healthy(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def healthy(url: str) -> bool:
    """Tell whether a worker serves."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


async def asked(client: openai.AsyncOpenAI, model: str, prompt: str) -> dict[str, Any]:
    """Stream a completion; return its text and when its parts came."""
    begun, first, pieces = time.perf_counter(), None, []
    stream = await client.completions.create(
        model=model, prompt=prompt, max_tokens=TOKENS, stream=True
    )
    async for event in stream:
        if event.choices and event.choices[0].text:
            if first is None:
                first = time.perf_counter() - begun
            pieces.append(event.choices[0].text)
    return {"first_s": first, "whole_s": time.perf_counter() - begun, "text": "".join(pieces)}


async def at_once(base: str, key: str, names: list[str]) -> list[dict[str, Any]]:
    """Ask all functions at once."""
    # The client's own retries would hide what failed.
    async with openai.AsyncOpenAI(
        base_url=f"{base}/v1", api_key=key, timeout=WAIT_S, max_retries=0
    ) as client:
        return await asyncio.gather(*(asked(client, name, prompt_of(name)) for name in names))


def by_curl(base: str, key: str, name: str) -> dict[str, Any]:
    """Stream a completion with `curl -N`; return its text and when its first event came."""
    body = {"model": name, "prompt": prompt_of(name), "max_tokens": TOKENS, "stream": True}
    url = f"{base}/funccall/public/demo/{name}/v1/completions"
    line = ("curl", "-sN", "--fail-with-body", "--config", "-", "--json", json.dumps(body), url)
    begun, first, pieces = time.perf_counter(), None, []
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdin is not None
        assert curl.stdout is not None
        # A key in argv is everybody's.
        curl.stdin.write(f'header = "Authorization: Bearer {key}"\n')
        curl.stdin.close()
        for told in curl.stdout:
            if told.startswith("data: {"):
                choices = json.loads(told[6:]).get("choices", ())
                if choices and choices[0]["text"]:
                    first = time.perf_counter() - begun if first is None else first
                    pieces.append(choices[0]["text"])
    return {"first_s": first, "whole_s": time.perf_counter() - begun, "text": "".join(pieces)}


def expected(names: list[str]) -> dict[str, str]:
    """Return what each function must answer."""
    with never_suspended() as base:

        async def ask() -> dict[str, str]:
            async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none") as client:
                return {
                    name: (await asked(client, "any", prompt_of(name)))["text"] for name in names
                }

        return asyncio.run(ask())


def apply(folder: Path, gateway: str, key: str) -> None:
    """Apply all functions by the client."""
    file = folder / "functions.json"
    file.write_text(json.dumps([function(number) for number in range(FUNCTIONS)]))
    env = {**os.environ, "INFERX_SERVER": gateway, "INFERX_API_KEY": key}
    subprocess.run((*INFERX, "apply", "-f", str(file)), check=True, env=env)


def main() -> None:
    """Try it, and write down what came of it."""
    program("studies.thirty", __doc__).parse_args()
    names = [f"m{number:02}" for number in range(FUNCTIONS)]
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        right = expected(names)

        def judged(kind: str, answers: list[dict[str, Any]]) -> None:
            wrong = [
                name for name, one in zip(names, answers, strict=True) if one["text"] != right[name]
            ]
            for one in answers:
                del one["text"]
            rounds.append({"round": kind, "answers": answers, "wrong": wrong})
            first = sorted(one["first_s"] for one in answers)
            print(
                f"{kind}: first token {first[len(first) // 2]:.2f} s (median), {first[-1]:.2f} s (last), {len(wrong)} wrong",
                flush=True,
            )

        up = ("up", "--gpus", GPUS, "--stand-in-workers", "--folder", str(folder / "up"))
        with service(folder, "up", *up, "--listen", "127.0.0.1:0") as (told, _):
            gateway, key = told["gateway"], told["api_key"]
            apply(folder, gateway, key)
            with Page(gateway, key, ROOT / "docs" / "pictures") as page:
                for number in range(ROUNDS):
                    client = asyncio.run(taken(at_once(gateway, key, names), page, number))
                    judged(f"openai, all at once, {number + 1}", client)
                judged("curl -N, one by one", [by_curl(gateway, key, name) for name in names])
                judged(
                    "curl -N, again",
                    [by_curl(gateway, key, name) for name in names],
                )
                view = page.view()
    found = {
        **about("studies.thirty", seed=0),
        "gpus": GPUS,
        "functions": FUNCTIONS,
        "wanted_mb": sum(SIZES_MB[n % len(SIZES_MB)] for n in range(FUNCTIONS)),
        "rounds": rounds,
        "pods": Counter(pod["state"] for pod in view["pods"]),
        "counters": view["counters"],
    }
    (DATA / "thirty.json").write_text(json.dumps(found, indent=1) + "\n")
    (DATA.parent / "thirty.md").write_text(document(found))
    if any(one["wrong"] for one in rounds):
        sys.exit("some answers were wrong")


async def taken(work: Any, page: Page, number: int) -> list[dict[str, Any]]:
    """Do the work of a round, and take pictures of the first one."""
    running = asyncio.ensure_future(work)
    if number == 0:
        await asyncio.sleep(1.5)
        await asyncio.to_thread(page.picture, "page-waking", "light")
    answers = await running
    if number == 0:
        await asyncio.to_thread(page.picture, "page-served", "dark")
    return answers


if __name__ == "__main__":
    main()
