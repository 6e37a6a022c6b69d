"""The paced worker as a process: the API's shapes, determinism, pace, memory, slots, its end."""

import base64
import contextlib
import hashlib
import json
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from worker_process import LIMIT_S, worker

MIB = 1 << 20
WEIGHTS, KV = 32 * MIB, 96 * MIB
RATE = 100
SETTINGS = (
    "--model=m", f"--weights={WEIGHTS}", f"--kv={KV}", f"--tokens-per-s={RATE}", "--ttft-ms=20",
    "--slots=2", "--queue-len=2", "--seed=7",
)  # fmt: skip
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Say something."}]}
LONG = {"prompt": "Go on.", "max_tokens": 100_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def served():
    with worker(*SETTINGS) as one:
        yield one


def text_of(events):
    """The text that a stream of chat tells, and the last reason to end."""
    choices = [event["choices"][0] for event in events if event and event["choices"]]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    return text, choices[-1]["finish_reason"]


def test_chat_has_the_shape_of_the_api(served):
    answer = served.post("/v1/chat/completions", {**CHAT, "max_tokens": 5})
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    assert answer["id"].startswith("chatcmpl-")
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"].split()) == 5
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


def test_a_stream_tells_what_the_whole_answer_tells(served):
    whole = served.post("/v1/chat/completions", CHAT)
    options = {"stream_options": {"include_usage": True}}
    events = list(served.stream("/v1/chat/completions", {**CHAT, **options}))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events[:-1]}) == 1
    choice = whole["choices"][0]
    assert text_of(events) == (choice["message"]["content"], "stop")
    assert (events[-2]["choices"], events[-2]["usage"]) == ([], whole["usage"])
    assert events[-1] is None
    # One chunk a token, between the role and the reason to end.
    assert len(events) == whole["usage"]["completion_tokens"] + 4


def test_completions_take_text_and_one_text_in_a_list(served):
    answer = served.post("/v1/completions", {"prompt": "Say something."})
    assert answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens"] == 16
    again = served.post("/v1/completions", {"prompt": ["Say something."]})
    assert again["choices"] == answer["choices"]
    events = list(served.stream("/v1/completions", {"prompt": "Say something."}))
    told = "".join(event["choices"][0]["text"] for event in events if event)
    assert told == answer["choices"][0]["text"]


def test_content_in_parts_is_the_same_prompt(served):
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "something."}]
    split = {**CHAT, "messages": [{"role": "user", "content": parts}]}
    one, other = (served.post("/v1/chat/completions", body)["choices"] for body in (CHAT, split))
    assert one == other


def test_models_are_listed(served):
    answer = served.get("/v1/models")
    assert [model["id"] for model in answer["data"]] == ["m"]
    assert answer["object"] == "list"


def test_embeddings_are_unit_vectors_in_either_encoding(served):
    answer = served.post("/v1/embeddings", {"input": ["a", "b"]})
    first, second = (row["embedding"] for row in answer["data"])
    assert sum(value * value for value in first) == pytest.approx(1.0)
    assert first != second
    packed = served.post("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack(f"<{len(first)}f", raw) == pytest.approx(first)


def test_the_text_follows_from_seed_and_prompt(served):
    text = served.complete()
    assert served.complete() == text
    assert served.complete(seed=1) != text
    assert served.complete("Say something else.") != text
    with worker("--model=other", "--weights=1MiB", "--seed=7", "--tokens-per-s=1000") as other:
        assert other.complete() == text
    with worker("--weights=1MiB", "--seed=8", "--tokens-per-s=1000") as other:
        assert other.complete() != text


def test_a_stop_text_is_not_told(served):
    words = served.complete().split()
    stopped = {"prompt": "Say something.", "max_tokens": 12, "stop": [f" {words[4]}", "\n"]}
    answer = served.post("/v1/completions", stopped)
    [choice] = answer["choices"]
    assert choice["text"].split() == words[:4]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 5


def test_without_a_limit_an_answer_ends_by_itself(served):
    answer = served.post("/v1/chat/completions", CHAT)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 16 <= answer["usage"]["completion_tokens"] < 64
    longer = {**CHAT, "max_completion_tokens": 70, "ignore_eos": True}
    answer = served.post("/v1/chat/completions", longer)
    assert answer["usage"]["completion_tokens"] == 70


def test_tokens_come_at_the_declared_pace(served):
    count = 60
    body = {"prompt": "Say something.", "max_tokens": count, "ignore_eos": True}
    asked = time.monotonic()
    times = [time.monotonic() for event in served.stream("/v1/completions", body) if event]
    assert times[0] - asked >= 0.02
    # The last event tells why it ended, and comes with the last token.
    assert 0.95 <= (times[-2] - times[0]) / ((count - 1) / RATE) <= 1.5


def test_memory_is_held_and_given_back(served):
    text = served.complete()
    held = served.resident_bytes
    assert held > WEIGHTS + KV
    told = served.get("/checksum")
    assert told["bytes"] == WEIGHTS
    state = served.post("/inferx/quiesce")
    assert (state["status"], state["kv_bytes"]) == ("quiesced", 0)
    assert held - served.resident_bytes > 0.95 * KV
    assert served.ask("GET", "/health") == (503, {"status": "quiesced"})
    assert served.post("/inferx/quiesce")["status"] == "quiesced"
    assert served.get("/checksum") == told
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(served.complete)
        served.until(lambda state: state["waiting"] == 1)
        assert served.post("/inferx/wake")["kv_bytes"] == KV
        assert waits.result(LIMIT_S) == text
    assert abs(served.resident_bytes - held) < 0.1 * KV
    assert served.ask("GET", "/health") == (200, {"status": "ready"})


@contextlib.contextmanager
def streaming(served, body=LONG):
    """A request that generates until it is left."""
    connection = served.connect()
    connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}))
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    try:
        yield
    finally:
        # The answer holds the socket, too.
        answer.close()
        connection.close()


def test_requests_wait_for_slots_and_too_many_are_refused(served):
    before = served.get("/inferx/state")
    ended = []
    with streaming(served), streaming(served):

        def wait(index):
            served.complete(max_tokens=1)
            ended.append(index)

        waiting = [threading.Thread(target=wait, args=(index,)) for index in range(2)]
        for index, thread in enumerate(waiting):
            thread.start()
            state = served.until(lambda state, index=index: state["waiting"] == index + 1)
        assert state["active"] == 2
        status, answer = served.ask("POST", "/v1/completions", {"prompt": "x"})
        assert (status, answer["error"]["code"]) == (429, "queue_full")
    for thread in waiting:
        thread.join(LIMIT_S)
    assert sorted(ended) == [0, 1]
    state = served.until(lambda state: not state["active"])
    assert state["finished"] == before["finished"] + 2
    assert state["aborted"] == before["aborted"] + 2
    assert state["refused"] == before["refused"] + 1
    assert state["requests"] == before["requests"] + 5


def test_a_client_that_leaves_frees_its_slot(served):
    before = served.get("/inferx/state")["aborted"]
    with streaming(served):
        served.until(lambda state: state["active"] == 1)
    served.until(lambda state: state["active"] == 0 and state["aborted"] == before + 1)
    # Also where nothing was written to it yet.
    connection = socket.create_connection(("127.0.0.1", served.port))
    body = json.dumps(LONG).encode()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    served.until(lambda state: state["active"] == 1)
    connection.close()
    served.until(lambda state: state["active"] == 0 and state["aborted"] == before + 2)


def test_quiescing_waits_for_who_generates_and_gives_up_in_time(served):
    with streaming(served):
        status, answer = served.ask("POST", "/inferx/quiesce?timeout_s=0.05")
        assert (status, answer["error"]["code"]) == (409, "busy")
        assert served.get("/health") == {"status": "ready"}
        assert served.complete(max_tokens=1)
    served.until(lambda state: state["active"] == 0)


def test_a_quiesce_whose_caller_leaves_is_finished(served):
    with streaming(served):
        connection = socket.create_connection(("127.0.0.1", served.port))
        connection.sendall(b"POST /inferx/quiesce HTTP/1.1\r\nHost: x\r\n\r\n")
        served.until(lambda state: state["paused"])
        connection.close()
        assert served.get("/inferx/state")["kv_bytes"] == KV
    served.until(lambda state: state["status"] == "quiesced" and not state["kv_bytes"])
    served.post("/inferx/wake")
    assert served.complete(max_tokens=1)


def test_termination_lets_requests_end():
    with worker(*SETTINGS) as one:
        body = {"prompt": "x", "max_tokens": 30, "ignore_eos": True}
        events = one.stream("/v1/completions", body)
        next(events)
        idle = one.connect()
        idle.request("GET", "/health")
        assert idle.getresponse().read() == b'{"status":"ready"}'
        one.process.send_signal(signal.SIGTERM)
        assert len(list(events)) == 31
        assert one.process.wait(LIMIT_S) == 0
        idle.close()


def test_termination_ends_in_time_though_requests_do_not():
    with worker(*SETTINGS, "--drain-s=0.1") as one, streaming(one):
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(LIMIT_S) == 0


def test_the_checksum_is_that_of_the_file(tmp_path, good):
    file = tmp_path / "w.bin"
    size = 20 * MIB + 13
    assert good("worker", "weights", file, "--bytes", size, "--seed", 5).endswith(
        f"{size} bytes of weights\n"
    )
    content = file.read_bytes()
    assert len(content) == size
    with worker(f"--weights={file}") as one:
        told = one.get("/checksum")
    assert told == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": size}
    # Generated in memory, the bytes are the same.
    with worker(f"--weights={size}", "--seed=5") as one:
        assert one.get("/checksum") == told
    assert [path.name for path in tmp_path.iterdir()] == ["w.bin"]


@pytest.mark.parametrize("stream", [False, True])
def test_who_records_a_trace_is_told_of_the_worker_s_part_and_nobody_else_is(served, stream):
    trace = "0af7651916cd43dd8448eb211c80319c"

    def told(traceparent):
        connection = served.connect()
        body = json.dumps({"prompt": "hi", "max_tokens": 2, "stream": stream})
        headers = {"traceparent": traceparent} if traceparent else {}
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        connection.close()
        return answer.headers["traceresponse"], answer.headers["Server-Timing"]

    spans = set()
    for _ in range(2):
        response, timing = told(f"00-{trace}-b7ad6b7169203331-01")
        version, its_trace, span, flags = response.split("-")
        assert (version, its_trace, flags) == ("00", trace, "01")
        names = [one.partition(";dur=")[0].strip() for one in timing.split(",")]
        assert names == ["wait", "first" if stream else "generate"]
        spans.add(span)
    assert len(spans - {"b7ad6b7169203331"}) == 2
    for nobody in ("", f"00-{trace}-b7ad6b7169203331-00", "nonsense"):
        assert told(nobody) == (None, None)


def test_a_request_is_written_down_by_its_id_as_it_is_begun(tmp_path):
    log = tmp_path / "requests.jsonl"
    with worker(*SETTINGS, f"--request-log={log}") as one:
        connection = one.connect()
        for name in ("a", "b" * 200):
            body = json.dumps({"prompt": "hi", "max_tokens": 1})
            connection.request("POST", "/v1/completions", body, {"X-Request-Id": name})
            connection.getresponse().read()
        connection.close()
        one.ask("POST", "/v1/completions", "no JSON")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["model"], one["request"]) for one in told] == [("m", "a"), ("m", "b" * 128)]
