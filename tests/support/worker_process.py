"""A worker as a process of its own on loopback, and a client that blocks."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

INFERX = [sys.executable, "-c", "from inferx.cli import main; main()"]
LIMIT_S = 60.0
"""How long anything may take on a busy machine."""


class Worker:
    """A running worker; `said` is what it printed until it listened."""

    def __init__(self, process, said):
        self.process = process
        self.said = said
        self.port = int(said.rsplit(":", 1)[1])

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)

    def ask(self, method, path, body=None):
        """Return status and decoded answer."""
        connection = self.connect()
        try:
            text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, text)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path):
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path, body=None):
        status, answer = self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def complete(self, prompt="Say something.", **more):
        """Return the text of a completion."""
        answer = self.post("/v1/completions", {"prompt": prompt, "max_tokens": 12, **more})
        return answer["choices"][0]["text"]

    def stream(self, path, body):
        """Yield the events of a stream as they come, `[DONE]` as None."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield from events(answer)
        finally:
            connection.close()

    def until(self, what, path="/inferx/state"):
        """Poll until `what` holds of the state."""
        end = time.monotonic() + LIMIT_S
        while not what(state := self.ask("GET", path)[1]):
            assert time.monotonic() < end, state
            time.sleep(0.01)
        return state

    @property
    def resident_bytes(self):
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def events(answer):
    """Yield what a stream tells; it must end as streams end."""
    while line := answer.readline():
        if line == b"\n":
            continue
        assert line.startswith(b"data: "), line
        if line == b"data: [DONE]\n":
            yield None
            assert answer.read() == b"\n"
            return
        yield json.loads(line[6:])
    raise AssertionError("a stream that does not end with [DONE]")


@contextmanager
def worker(*options, output=None, ready=True):
    """Run `inferx worker` on a free port; it is gone afterwards.

    With `output`, it holds no end of a pipe: what it prints goes to that file.
    """
    to = subprocess.PIPE if output is None else output.open("wb")
    process = subprocess.Popen(
        [*INFERX, "worker", "--port", "0", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=to,
        stderr=None if output is None else to,
        start_new_session=output is not None,
    )
    try:
        if output is None:
            said = process.stdout.readline().decode().strip()
        else:
            end = time.monotonic() + LIMIT_S
            while not (said := output.read_text()).endswith("\n"):
                assert process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.01)
        assert said, f"the worker ended with status {process.wait(LIMIT_S)}"
        one = Worker(process, said.splitlines()[0])
        if ready:
            one.until(lambda told: told["status"] == "ready", "/health")
        yield one
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        if to is not subprocess.PIPE:
            to.close()
        else:
            process.stdout.close()
