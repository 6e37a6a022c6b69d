"""A store's address: each kind opens what it names, and what is wrong is said in one line."""

from pathlib import Path

import pytest
from stores import put

from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.opening import PASSWORD_VARIABLE, open_store
from inferx.exec.state.store import Store


async def opened(url: str) -> Store:
    return await open_store(url, WallClock())


async def test_each_kind_opens_what_it_names(tmp_path: Path, monkeypatch):
    memory = await opened("memory:")
    assert isinstance(memory, MemoryStore)
    await memory.close()
    for _ in range(2):
        store = await opened(f"sqlite:{tmp_path}/store")
        await put(store, "/a", b"1")
        await store.close()
    assert (tmp_path / "store").exists()
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    urls = {
        "etcd://127.0.0.1:2379,[::1]:2379": EtcdStore,
        "etcd://a:1?user=root": EtcdStore,
        "etcds://a:1,b:2": EtcdStore,
        "grpc://state.inferx:1237": RemoteStore,
        "grpcs://a:1237": RemoteStore,
    }
    for url, kind in urls.items():
        store = await opened(url)
        assert isinstance(store, kind)
        await store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "memory:, sqlite:PATH"),
        ("store.db", "'store.db': expected"),
        ("postgres://u:SECRET@h/db", "'postgres': expected"),
        ("memory:x", "expected memory:"),
        ("sqlite:", "sqlite:PATH"),
        ("sqlite://host/path", "sqlite:PATH"),
        ("etcd:host:1", "etcd://HOST:PORT"),
        ("etcd://", "etcd://HOST:PORT"),
        ("etcd://host", "etcd://HOST:PORT"),
        ("etcd://a:1,", "etcd://HOST:PORT"),
        ("etcd://a:1,b:0", "etcd://HOST:PORT"),
        ("etcd://a:65536", "etcd://HOST:PORT"),
        ("etcd://a:1/path", "etcd://HOST:PORT"),
        ("etcd://::1:2379", "etcd://HOST:PORT"),
        ("etcd://root:SECRET@a:1", "?user=NAME"),
        ("etcd://a:1?password=SECRET", "'password': expected user, password-file"),
        ("etcd://a:1?ca=x", "TLS is etcds:"),
        ("etcd://a:1?user=x&user=y", "user: expected one value"),
        ("etcd://a:1?user=", "user: expected one value"),
        ("etcd://a:1?user=root", PASSWORD_VARIABLE),
        ("etcd://a:1?password-file=x", "without user"),
        ("etcd://a:1?user=root&password-file=/missing", "/missing: No such file"),
        ("etcds://a:1?ca=/missing", "ca: /missing: No such file"),
        ("etcds://a:1?cert=x", "expected both"),
        ("etcds://a:1?ca=/dev/null", "expected PEM"),
        ("grpc://a:1?user=x", "'user': expected none"),
        ("grpcs://a:1?user=x", "'user': expected ca, cert, key"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line_without_a_secret(url: str, said: str, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(DescriptionError) as caught:
        await opened(url)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert "SECRET" not in message
