"""What the agent says to a pod over HTTP: is it well, be quiet, wake up.

Plain HTTP/1.1 to the pod's own address; a pod is asked nothing else. A call's time is its own from
connecting to the last byte: a pod that answers a byte at a time is cut off as well.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable

from inferx.exec.agent.ports import AgentError, Hook

__all__ = ["healthy", "pause_s", "post", "wait_until_healthy"]

_ASK_S = 5.0
_ANSWER_BYTES = 1 << 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25
_PAUSE = 0.05
"""Of the time that a pod is waited for: it is found well at most so much later than it was."""


def healthy(address: str, path: str, *, timeout_s: float = _ASK_S) -> bool:
    """Say whether a pod answers 200; whatever else it does is no."""
    try:
        return _status("GET", address, path, timeout_s) == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def pause_s(waited_s: float) -> float:
    """Return how long not to ask a pod that has been waited for so long.

    A pause that doubles would be as long as the start itself; one that grows with the wait costs
    a short start milliseconds and a long one a quarter of a second.
    """
    return min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, _PAUSE * waited_s))


def wait_until_healthy(
    address: str, path: str, *, timeout_s: float, gone: Callable[[], bool]
) -> None:
    """Ask until a pod is well.

    Args:
        address: Its `host:port`.
        path: What is asked for.
        timeout_s: How long.
        gone: Says whether the pod has ended meanwhile: then there is nothing to wait for.

    Raises:
        AgentError: It was not well in time, or has ended.
    """
    began = time.monotonic()
    until = began + timeout_s
    while not healthy(address, path):
        if gone():
            raise AgentError("the pod's process ended before it was ready", phase="health")
        now = time.monotonic()
        if now >= until:
            text = f"{address}{path}: not well after {timeout_s:g} s; expected 200"
            raise AgentError(text, phase="health")
        time.sleep(pause_s(now - began))


def post(address: str, hook: Hook, *, timeout_s: float) -> None:
    """Post to a hook.

    Raises:
        AgentError: It was not answered by a 2xx in time.
    """
    try:
        status = _status("POST", address, hook.path, timeout_s, hook.body)
    except (OSError, http.client.HTTPException) as error:
        raise AgentError(f"{address}{hook.path}: {error or type(error).__name__}") from error
    if not 200 <= status < 300:
        raise AgentError(f"{address}{hook.path}: answered {status}; expected 200")


def _status(
    method: str, address: str, path: str, timeout_s: float, body: bytes | None = None
) -> int:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    headers = {"Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    # A socket's timeout is for each read; its end cuts all of them off.
    expired = threading.Event()
    late = threading.Timer(timeout_s, _cut, (connection, expired))
    late.daemon = True
    try:
        connection.connect()
        late.start()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        # What it says beside the status is of no use, and a pod may say it for ever.
        answer.read(_ANSWER_BYTES)
        if expired.is_set():
            raise TimeoutError(f"no whole answer within {timeout_s:g} s")
        return answer.status
    finally:
        late.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection, expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
