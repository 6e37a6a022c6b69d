"""Calls to pods: in time as a whole, however slowly a pod answers."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.agent import hooks
from inferx.exec.agent.ports import AgentError, Hook

FOREVER_S = 30.0


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that answers a byte at a time, each well within any timeout."""
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
            while not done.wait(0.05):
                try:
                    connection.sendall(b".")
                except OSError:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        done.set()
        thread.join(FOREVER_S)
        listener.close()


def test_a_hook_that_answers_for_ever_is_cut_off(dripping: str) -> None:
    began = time.monotonic()
    with pytest.raises(AgentError, match=r"/quiesce: "):
        hooks.post(dripping, Hook("/quiesce"), timeout_s=0.4)
    assert time.monotonic() - began < 5


def test_a_pod_that_says_that_it_is_well_for_ever_is_not(dripping: str) -> None:
    assert not hooks.healthy(dripping, "/health", timeout_s=0.4)


@given(st.floats(0, 1e4))
def test_a_pod_is_found_well_soon_for_the_time_that_it_took(waited_s: float) -> None:
    pause_s = hooks.pause_s(waited_s)
    assert 0 < pause_s <= 0.25
    # A twentieth of the wait, but for the first fifth of a second.
    assert pause_s <= max(0.05 * waited_s, 0.01)


def test_a_pod_that_takes_a_second_is_not_asked_all_the_time() -> None:
    asked, waited_s = 0, 0.0
    while waited_s < 1.0:
        asked, waited_s = asked + 1, waited_s + hooks.pause_s(waited_s)
    assert asked < 80
