"""The agent's end of its CUDA helper: one child process, its socket, and the calls that wait.

Laws:
1. Every call ends: with an answer, with `TimeoutError` at its deadline, or with `HelperGoneError`.
2. A helper is used until it dies or is killed, and never again after.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future

import msgspec

from inferx.core.errors import InferXError
from inferx.exec.agent.gpus.device.messages import PACKET_BYTES, Answer, Ask, Hello

__all__ = ["CALL_LIMIT", "Channel", "HelperGoneError"]

CALL_LIMIT = 64
"""Calls that may be under way, each a thread of the helper: more than a node restores at once."""
_END_TIMEOUT_S = 5.0
"""How long a helper may take to end by itself, and a killed one to be gone."""


class HelperGoneError(InferXError):
    """The helper ended, or was killed, before it answered."""


class Channel:
    """One running helper.

    Attributes:
        pid: Of the helper.
        hello: Its first packet, when it comes.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = dict(os.environ)
        env.pop("CUDA_VISIBLE_DEVICES", None)  # It speaks for processes on any GPU.
        # The module is found where this one was, and never in the folder that we were started in.
        env["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        module = "inferx.exec.agent.gpus.device.helper"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # What a terminal sends is for the agent.
            )
        self.pid = self._process.pid
        self.hello: Future[Hello] = Future()
        self._socket = ours
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._serial = 0
        self._gone = ""
        self._reader = threading.Thread(target=self._read, name="cuda-helper", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether calls may be made."""
        with self._lock:
            return not self._gone

    def call(self, ask: Ask, *, timeout_s: float) -> Answer:
        """Make one call and wait for its answer.

        Args:
            ask: The call; its serial is given here.
            timeout_s: The watchdog's deadline, from now.

        Raises:
            TimeoutError: It did not return in time.
            HelperGoneError: The helper ended, or has no room for another call.
        """
        future: Future[Answer] = Future()
        with self._lock:
            if self._gone:
                raise HelperGoneError(self._gone)
            if len(self._waiting) >= CALL_LIMIT:
                raise HelperGoneError(f"{CALL_LIMIT} calls are under way, which is the limit")
            self._serial += 1
            serial = self._serial
            self._waiting[serial] = future
        packet = msgspec.msgpack.encode(msgspec.structs.replace(ask, serial=serial))
        try:
            self._socket.send(packet)
        except OSError as error:
            self._end(f"it cannot be reached: {error}")
        try:
            return future.result(timeout_s)
        finally:
            with self._lock:
                self._waiting.pop(serial, None)

    def kill(self, reason: str) -> None:
        """End the helper, whatever it is in; the calls that wait in it fail with the reason."""
        self._end(reason)
        self._process.kill()
        # One that is stuck in the kernel cannot be waited for; it is used no more all the same.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT_S)

    def close(self) -> None:
        """Let the helper end."""
        self._end("it was closed")
        with contextlib.suppress(OSError):  # It may be gone already.
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill("it was closed")
        self._reader.join(_END_TIMEOUT_S)

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(Answer)
        with self._socket:
            try:
                packet = self._socket.recv(PACKET_BYTES)
                if packet:
                    self.hello.set_result(msgspec.msgpack.decode(packet, type=Hello))
                while packet := self._socket.recv(PACKET_BYTES):
                    answer = decoder.decode(packet)
                    with self._lock:
                        future = self._waiting.pop(answer.serial, None)
                    if future is not None:
                        future.set_result(answer)
            except OSError as error:
                self._end(f"it cannot be reached: {error}")
            status = self._process.wait()
            self._end(f"it ended with status {status}")
            if not self.hello.done():
                self.hello.set_exception(HelperGoneError(self._gone))

    def _end(self, reason: str) -> None:
        """Use the helper no more, and fail what waits in it; the first reason stays."""
        with self._lock:
            self._gone = self._gone or reason
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for future in waiting:
            future.set_exception(HelperGoneError(self._gone))
