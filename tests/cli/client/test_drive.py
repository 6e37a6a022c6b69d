"""`inferx drive`: bad input is one line, before anything is sent; what came back is told."""

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace

UNREACHABLE = ("--server", "http://127.0.0.1:1")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    tokens = np.array([3], np.int32)
    path = tmp_path / "trace.parquet"
    made = make_trace(np.zeros(1, np.int64), input_tokens=tokens, output_tokens=tokens)
    write_trace(path, [made])
    return path


def test_bad_input_is_told_in_one_line(call, tmp_path: Path, trace: Path) -> None:
    plain = tmp_path / "plain.parquet"
    write_trace(plain, [make_trace(np.zeros(1, np.int64), duration_ns=np.array([5]))])
    (tmp_path / "none").mkdir()
    here = ("--in", "public/demo", *UNREACHABLE)
    for words, told in (
        ((trace, *UNREACHABLE), "Missing option '--in'"),
        ((trace, "--in", "public", *UNREACHABLE), "--in public: expected TENANT/NAMESPACE"),
        ((trace, "--in", "a b/c", *UNREACHABLE), "the text 'a b'"),
        ((tmp_path / "absent", *here), "absent"),
        ((plain, *here), "request 0 has a duration; expected tokens"),
        ((trace, *here, "--out", tmp_path / "run"), "--out needs --journals"),
        ((trace, *here, "--json"), "--json needs --journals"),
        ((trace, *here, "--predict", "criu-memfd"), "--predict needs --journals"),
        ((trace, *here, "--calibrate", tmp_path / "c.toml"), "--calibrate needs --journals"),
        ((trace, *here, "--assign", "zipf"), "zipf"),
        ((trace, *here, "--within", "nan"), "within nan: expected a time"),
        ((trace, *here, "--at-once", "0"), "--at-once"),
        (
            (trace, *here, "--journals", tmp_path / "none"),
            "0 journals of schedulers, 0 of gateways; expected one",
        ),
        (
            (trace, *here, "--journals", tmp_path, "--predict", "absent"),
            "profile absent: unknown",
        ),
        (
            (trace, *here, "--journals", tmp_path, "--calibrate", tmp_path / "no" / "c.toml"),
            "no folder",
        ),
        ((trace, *here), "http://127.0.0.1:1: "),
    ):
        status, out, err = call("drive", *words)
        assert (status, out) == (2, ""), words
        assert told in err, (words, err)
        assert err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


class _Gateway(BaseHTTPRequestHandler):
    """Answers every request with one token."""

    protocol_version = "HTTP/1.1"
    asked: threading.Semaphore

    def do_GET(self) -> None:
        self._answer("application/json", b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = json.dumps({"choices": [{"text": "ba"}]})
        self._answer("text/event-stream", f"data: {token}\n\ndata: [DONE]\n\n".encode())
        self.asked.release()

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_what_came_before_an_interrupt_is_told(tmp_path: Path) -> None:
    tokens = np.full(3, 3, np.int32)
    path = tmp_path / "trace.parquet"
    arrivals = np.array([0, 1_000_000, 600_000_000_000])
    write_trace(path, [make_trace(arrivals, input_tokens=tokens, output_tokens=tokens)])
    _Gateway.asked = threading.Semaphore(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = (sys.executable, "-m", "inferx", "drive", str(path), "--in", "public/demo")
    where = ("--server", f"http://127.0.0.1:{server.server_port}")
    process = subprocess.Popen(
        (*command, *where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(2):
            assert _Gateway.asked.acquire(timeout=60)
        time.sleep(1)  # Until the client has read what it was sent.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        server.shutdown()
        server.server_close()
    assert (process.returncode, err.strip()) == (130, "inferx: interrupted")
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines()]
    assert ["finished", "", "2"] in rows
    assert ["unfinished", "", "1"] in rows
    assert "late" in out
