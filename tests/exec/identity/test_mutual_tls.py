"""A cluster whose services know each other by certificates: who has none reaches nothing."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import trustme
from agent_node import needs_node

from inferx.exec.state import wire
from inferx.exec.state.objects import methods
from inferx.exec.state.objects.proto import objects_pb2
from inferx.exec.state.proto import state_pb2
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.rpc import DRAIN, FOLLOW, JOIN, VIEW

pytestmark = needs_node

READY_S = 60.0
CALL_S = 10.0


class Files(NamedTuple):
    certificate: Path
    key: Path
    authority: Path

    @property
    def words(self) -> tuple[str, ...]:
        named = zip(("certificate", "key", "authority"), self, strict=True)
        return tuple(word for name, path in named for word in (f"--tls-{name}", str(path)))

    @property
    def query(self) -> str:
        return f"?ca={self.authority}&cert={self.certificate}&key={self.key}"


def files(folder: Path, authority: trustme.CA, name: str) -> Files:
    made = Files(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.ca")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    made.certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    made.key.write_bytes(issued.private_key_pem.bytes())
    made.authority.write_bytes(authority.cert_pem.bytes())
    return made


class Cluster(NamedTuple):
    addresses: dict[str, str]
    folder: Path
    own: Files
    strange: Files


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("tls")
    own = files(folder, trustme.CA(), "own")
    strange = files(folder, trustme.CA(), "strange")
    addresses: dict[str, str] = {}
    with ExitStack() as stack:

        def start(name: str, *words: str) -> None:
            addresses[name] = stack.enter_context(running(folder, name, *words))

        start("state", "--store", f"sqlite:{folder / 'db'}", *own.words)
        state = ("--state", f"grpcs://{addresses['state']}{own.query}", *own.words)
        start("scheduler", *state)
        config = agent_config(folder)
        start("agent", "--config", str(config), *state, "--name", "here", "--stand-in-workers")
        stack.callback(end_pods, config)
        start("gateway", *state)
        yield Cluster(addresses, folder, own, strange)


def agent_config(folder: Path) -> Path:
    config = folder / "node.toml"
    config.write_text(
        f'[agent]\nname = "t{os.getpid() % 0xFFFFF:05x}"\nstate = "{folder / "node"}"\n'
        f'[network]\nsubnet = "10.{192 + os.getpid() % 32}.7.0/24"\n'
        '[sandbox]\nkind = "process"\n[gpu]\ndeclare = "1x80GiB"\n'
    )
    return config


def end_pods(config: Path) -> None:
    words = (sys.executable, "-m", "inferx", "agent", "end", "--config", str(config))
    subprocess.run(words, check=False, capture_output=True)


@contextmanager
def running(folder: Path, name: str, *words: str) -> Iterator[str]:
    ready, log = folder / f"{name}.ready", folder / f"{name}.log"
    command = (
        *(sys.executable, "-m", "inferx", name, *words),
        *("--listen", "127.0.0.1:0", "--ready-file", str(ready)),
    )
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield json.loads(ready.read_text())["address"]
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def credentials(own: Files | None, authority: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        authority.read_bytes(),
        None if own is None else own.key.read_bytes(),
        None if own is None else own.certificate.read_bytes(),
    )


HELLO = pb.FromRouter(hello=pb.Hello(gateway="stranger"))
LEAD = pb.ToNode(lead=pb.Lead(epoch=1 << 40))
PUT = state_pb2.Change(put=state_pb2.Put(key="/registry/x", value=b"x"))
ASKED: list[tuple[str, str, Any, str]] = [
    ("state", wire.GET.path, state_pb2.GetRequest(key="/registry/x"), "one"),
    ("state", wire.COMMIT.path, state_pb2.CommitRequest(changes=[PUT]), "one"),
    ("state", methods.VERSION.path, objects_pb2.VersionRequest(), "one"),
    ("state", "/grpc.health.v1.Health/Check", state_pb2.Done(), "one"),
    ("scheduler", VIEW.path, pb.ViewRequest(), "one"),
    ("scheduler", DRAIN.path, pb.DrainRequest(node="here", for_ns=1), "one"),
    ("scheduler", JOIN.path, HELLO, "stream"),
    ("agent", FOLLOW.path, LEAD, "stream"),
]


def asked(channel: grpc.Channel, path: str, request: Any, how: str) -> grpc.StatusCode:
    raw = request.SerializeToString()
    try:
        if how == "one":
            channel.unary_unary(path)(raw, timeout=CALL_S)
        else:
            call = channel.stream_stream(path)(iter([raw]), timeout=CALL_S)
            next(iter(call), None)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(("name", "path", "request_", "how"), ASKED)
def test_who_has_no_certificate_of_ours_reaches_nothing(
    cluster: Cluster, name: str, path: str, request_: Any, how: str
) -> None:
    address = cluster.addresses[name]
    strangers = {
        "in the clear": None,
        "without a certificate": credentials(None, cluster.own.authority),
        "with another authority's": credentials(cluster.strange, cluster.own.authority),
    }
    for who, shown in strangers.items():
        made = (
            grpc.insecure_channel(address) if shown is None else grpc.secure_channel(address, shown)
        )
        with made as channel:
            assert asked(channel, path, request_, how) is grpc.StatusCode.UNAVAILABLE, who


def test_those_who_have_one_are_a_cluster(cluster: Cluster) -> None:
    url = f"http://{cluster.addresses['gateway']}/readyz"
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert json.loads(answer.read())["status"] == "ok"
                break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with grpc.secure_channel(
        cluster.addresses["scheduler"], credentials(cluster.own, cluster.own.authority)
    ) as channel:
        while True:
            raw = channel.unary_unary(VIEW.path)(b"", timeout=CALL_S)
            (node,) = json.loads(pb.ViewReply.FromString(raw).json)["nodes"] or [{}]
            if node.get("connected"):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_what_protects_them_is_in_no_log(cluster: Cluster) -> None:
    key = "".join(cluster.own.key.read_text().splitlines()[1:-1])[:40]
    for log in cluster.folder.glob("*.log"):
        assert key not in log.read_text().replace("\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--tls-certificate", "own.pem"), "expected both, or neither"),
        (("--tls-certificate", "own.pem", "--tls-key", "strange.key"), "certificate and its key"),
        (("--tls-certificate", "none.pem", "--tls-key", "own.key"), "No such file"),
        (("--tls-authority", "own.ca"), "no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_told_at_the_start(
    cluster: Cluster, words: tuple[str, ...], expected: str
) -> None:
    command = (sys.executable, "-m", "inferx", "state", "--store", "memory:", *words)
    told = subprocess.run(
        (*command, "--listen", "127.0.0.1:0"),
        cwd=cluster.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode != 0
    assert expected in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
