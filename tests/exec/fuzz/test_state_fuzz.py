"""The state service takes whatever comes: it refuses, and serves on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_fuzz import BROKEN, Called, call, changed_bytes, messages, raw_bytes
from hypothesis import given, settings

from inferx.exec.state import wire
from inferx.exec.state.objects import methods
from inferx.exec.state.objects.proto import objects_pb2

STORE = [wire.GET, wire.LIST, wire.COMMIT, wire.GRANT, wire.KEEP_ALIVE, wire.REVOKE, wire.WATCH]
OBJECTS = [
    methods.VERSION,
    methods.UID,
    methods.GET,
    methods.LIST,
    methods.WATCH,
    methods.CREATE,
    methods.UPDATE,
    methods.APPLY,
    methods.DELETE,
]
STREAMS = {wire.LIST.path, wire.WATCH.path, methods.LIST.path, methods.WATCH.path}
WORDS = (
    "/registry/",
    "/registry/function/t1/n/f",
    "/registry/tenant/system/system/t1",
    "/registry/ledger/t1",
    "/elsewhere/k",
    "/elsewhere/",
    "function",
    "funcpolicy",
    "tenant",
    "namespace",
    "funcstatus",
    "node_info",
    "gateway",
    "scheduler",
    "t1",
    "n",
    "f",
    "system",
    '{"spec":{}}',
    '{"spec":{"limit":{"max_gpu":-1}}}',
    "a=b,!c",
)


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    channel: grpc.Channel
    log: Path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("state")
    ready, log = folder / "ready", folder / "log"
    command = (sys.executable, "-m", "inferx", "state", "--store", f"sqlite:{folder / 'db'}")
    with log.open("wb") as out:
        process = subprocess.Popen(
            (*command, "--listen", "127.0.0.1:0", "--ready-file", str(ready)),
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = ready.read_text().partition('"address": "')[2].partition('"')[0]
        with grpc.insecure_channel(address) as channel:
            yield Service(process, channel, log)
    finally:
        process.terminate()
        process.wait(30)


def still_serves(service: Service) -> None:
    assert service.process.poll() is None, service.log.read_text()
    version = call(service.channel, methods.VERSION.path, objects_pb2.VersionRequest())
    assert version.code is grpc.StatusCode.OK


def fits(told: Called, path: str) -> None:
    assert told.code not in BROKEN, f"{path}: {told.code}: {told.said}"
    assert "\n" not in told.said


@pytest.mark.parametrize("method", [*STORE, *OBJECTS], ids=lambda method: method.path)
@pytest.mark.parametrize("kind", ["bytes", "damaged", "shaped"])
def test_whatever_is_sent_is_answered_and_the_service_goes_on(
    service: Service, method, kind: str
) -> None:
    match kind:
        case "bytes":
            sent = raw_bytes
        case "damaged":
            sent = changed_bytes(method.request, WORDS)
        case _:
            sent = messages(method.request, WORDS)
    streams = method.path in STREAMS
    # A watch has no end, and needs none: what is wrong with it is told at once.
    wait_s = 0.2 if streams else 20.0

    @settings(max_examples=settings.default.max_examples if not streams else 15)
    @given(sent)
    def send(one) -> None:
        fits(
            call(service.channel, method.path, one, streams=streams, timeout_s=wait_s), method.path
        )

    send()
    still_serves(service)
