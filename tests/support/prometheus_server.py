"""Debian's Prometheus, scraping what a test names, and asked in PromQL."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from system_parts import ROOT, free_port

__all__ = ["PROMTOOL", "Prometheus", "needs_prometheus", "prometheus", "scraped"]

PARTS = ROOT / "build" / "prometheus" / "usr" / "bin"
"""Where tools/system-parts has unpacked it."""
READY_S = 30.0
SCRAPE_S = 1


def _program(name: str) -> str | None:
    own = PARTS / name
    return str(own) if os.access(own, os.X_OK) else shutil.which(name)


PROMETHEUS, PROMTOOL = _program("prometheus"), _program("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="needs Prometheus: run tools/system-parts"
)


def scraped(address: str, *, key: str = "", timeout_s: float = 20) -> list[Any]:
    """Return what an address tells, parsed by the library."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://{address}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return list(text_string_to_metric_families(answer.read().decode()))


class Prometheus:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        """Ask its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def ask(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return an expression's present values, by labels."""
        found = self.get("query", query=expression)
        assert found["resultType"] == "vector"
        return {
            tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found["result"]
        }

    def one(self, expression: str) -> float | None:
        """Return an expression's one value; None where there is none."""
        found = self.ask(expression)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    def until(
        self, expression: str, holds: Callable[[float | None], bool], within_s: float
    ) -> float:
        """Ask until the answer is as it should be, and return it."""
        end = time.monotonic() + within_s
        while not holds(value := self.one(expression)):
            assert time.monotonic() < end, f"{expression} is {value}"
            time.sleep(0.1)
        assert value is not None
        return value


@contextmanager
def prometheus(folder: Path, targets: Path) -> Iterator[Prometheus]:
    """Run one that scrapes every second what a file of `file_sd_configs` names."""
    folder.mkdir(parents=True)
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s"},
        "scrape_configs": [
            {"job_name": "inferx", "file_sd_configs": [{"files": [str(targets)]}]},
        ],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    assert PROMETHEUS is not None
    command = (
        *(PROMETHEUS, f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"),
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        made = Prometheus(port)
        end = time.monotonic() + READY_S
        while True:
            try:
                urllib.request.urlopen(f"{made.url}/-/ready", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
