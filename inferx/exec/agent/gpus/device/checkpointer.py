"""Moves a process's GPU state to host memory and back: what is asked, in which order, how long.

Laws:
1. One call at a time for a process; calls for different processes do not wait for each other.
2. A call that is illegal in the state that a process is known to be in is not made. What is not
   known, as of a process that CRIU brought back, the driver decides.
3. A call that does not return by its deadline takes the helper with it. Its process is then failed:
   nobody knows how far the driver came. Other calls that waited in that helper fail, too, and of
   their processes nothing is known; the next call starts another helper.
4. A call that has to start a helper waits for that first, beside its own deadline.
5. The state is never polled: on nodes with many GPUs that question takes seconds.
"""

import threading
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from inferx.exec.agent.gpus.device.channel import Channel, HelperGoneError
from inferx.exec.agent.gpus.device.messages import Ask, Hello
from inferx.exec.agent.gpus.device.states import (
    CUSTOM_STORAGE_CUDA,
    LEGAL,
    REMAP_CUDA,
    STATES,
    Error,
    explain,
    state_after,
    version,
)
from inferx.exec.agent.ports import AgentError, Capability, DeviceState
from inferx.exec.agent.processes import procfs

__all__ = ["CudaCheckpointer"]

_LOCK_GRACE_S: Final = 2.0
"""What the driver may take beyond the wait that it was given for a lock."""


@dataclass(slots=True)
class _Known:
    """What is known of one process: its state, empty where nothing is. The lock is its turn."""

    started: int
    state: str = ""
    turn: threading.Lock = field(default_factory=threading.Lock)


class CudaCheckpointer:
    """Checkpoints by the CUDA driver API, in one helper process that is started when needed."""

    def __init__(self, *, start_timeout_s: float = 60.0, state_timeout_s: float = 10.0) -> None:
        """Start nothing yet.

        Args:
            start_timeout_s: How long the helper may take to initialise CUDA.
            state_timeout_s: How long the driver may take to tell a state.
        """
        self._start_timeout_s = start_timeout_s
        self._state_timeout_s = state_timeout_s
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._channel: Channel | None = None
        self._known: dict[int, _Known] = {}

    def probe(self) -> Capability:
        """Start the helper, and tell the driver and what it can do."""
        name = "device/cuda"
        try:
            _, hello = self._helper()
        except AgentError as error:
            return Capability(name=name, available=False, reason=str(error))
        custom = hello.cuda >= CUSTOM_STORAGE_CUDA
        facts = {
            "cuda": version(hello.cuda),
            "library": hello.library,
            "remap": "yes" if hello.remap else f"needs CUDA {version(REMAP_CUDA)}",
            # Told, not used: device memory goes through the process's own host memory.
            "custom_storage": "yes" if custom else f"needs CUDA {version(CUSTOM_STORAGE_CUDA)}",
        }
        return Capability(name=name, available=True, facts=facts)

    def state(self, pid: int) -> DeviceState:
        """Ask the driver; for a process that failed by our own account, tell that."""
        with self._turn(pid, "state", self._state_timeout_s) as known:
            if known.state == "failed":
                return DeviceState("failed")
            error, name, value = self._call(
                known, Ask(serial=0, call="state", pid=pid), timeout_s=self._state_timeout_s
            )
            if error == Error.INVALID_VALUE:
                known.state = ""
                return DeviceState("none")
            if error or value not in STATES:
                raise AgentError(
                    f"state of process {pid}: {name or f'unknown state {value}'}",
                    phase="device-state",
                )
            known.state = STATES[value]
            return DeviceState(known.state)

    def lock(self, pid: int, *, timeout_s: float) -> None:
        """Let no new GPU work begin, and wait for what runs; after an error it runs on."""
        timeout_ms = max(1, int(timeout_s * 1000))  # 0 would wait for ever.
        ask = Ask(serial=0, call="lock", pid=pid, timeout_ms=timeout_ms)
        self._step(ask, timeout_s=timeout_s + _LOCK_GRACE_S)

    def checkpoint(self, pid: int, *, timeout_s: float) -> None:
        """Move the state to the process's host memory; after an error the process is lost."""
        self._step(Ask(serial=0, call="checkpoint", pid=pid), timeout_s=timeout_s)

    def restore(self, pid: int, *, gpu_map: Mapping[str, str], timeout_s: float) -> None:
        """Move the state back to GPUs, whose free memory the caller has made sure of.

        Without that the process is lost: it is failed, and never tried again. Only a map that the
        driver or this refuses leaves it checkpointed.
        """
        pairs = self._pairs(pid, gpu_map)
        self._step(Ask(serial=0, call="restore", pid=pid, pairs=pairs), timeout_s=timeout_s)

    def unlock(self, pid: int, *, timeout_s: float) -> None:
        """Let GPU work begin again."""
        self._step(Ask(serial=0, call="unlock", pid=pid), timeout_s=timeout_s)

    def close(self) -> None:
        """End the helper."""
        with self._starting:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _pairs(self, pid: int, gpu_map: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
        if all(old == new for old, new in gpu_map.items()):
            return ()  # Where it was, which every driver can.
        if len(set(gpu_map.values())) != len(gpu_map):
            raise AgentError(
                f"restore of process {pid}: a map of GPUs must name each new one once",
                phase="device-restore",
            )
        _, hello = self._helper()
        if not hello.remap:
            raise AgentError(
                f"restore of process {pid} onto another GPU: it needs driver and bindings of CUDA"
                f" {version(REMAP_CUDA)}, and the driver's is {version(hello.cuda)}",
                phase="device-restore",
            )
        try:
            return tuple(
                (
                    uuid.UUID(old.removeprefix("GPU-")).bytes,
                    uuid.UUID(new.removeprefix("GPU-")).bytes,
                )
                for old, new in gpu_map.items()
            )
        except ValueError as error:
            raise AgentError(
                f"restore of process {pid}: a map of GPUs names them as GPU-UUID,"
                f" not {', '.join(gpu_map)}",
                phase="device-restore",
            ) from error

    def _step(self, ask: Ask, *, timeout_s: float) -> None:
        legal, _ = LEGAL[ask.call]
        phase = f"device-{ask.call}"
        with self._turn(ask.pid, ask.call, timeout_s) as known:
            if known.state not in {"", legal}:
                raise AgentError(
                    f"{ask.call} of process {ask.pid}: it is {known.state}, not {legal}",
                    phase=phase,
                )
            error, name, _ = self._call(known, ask, timeout_s=timeout_s)
            known.state = state_after(ask.call, known.state, error)
            if error:
                why = explain(ask.call, error)
                raise AgentError(
                    f"{ask.call} of process {ask.pid}: {name}{f' ({why})' if why else ''}",
                    phase=phase,
                )

    def _call(self, known: _Known, ask: Ask, *, timeout_s: float) -> tuple[int, str, int]:
        """Make one call; whoever calls holds the turn. Returns error, its name, and the value."""
        channel, _ = self._helper()
        try:
            answer = channel.call(ask, timeout_s=timeout_s)
        except TimeoutError as error:
            known.state = "failed"
            late = f"{ask.call} of process {ask.pid} did not return within {timeout_s:g} s"
            channel.kill(f"it was killed because {late}")
            raise AgentError(
                f"{late}; the process cannot be used", phase=f"device-{ask.call}"
            ) from error
        except HelperGoneError as error:
            known.state = ""
            raise AgentError(
                f"{ask.call} of process {ask.pid}: no answer from the CUDA helper: {error}",
                phase=f"device-{ask.call}",
            ) from error
        return answer.error, answer.name, answer.value

    def _helper(self) -> tuple[Channel, Hello]:
        """Return the helper, started where there is none that lives."""
        with self._starting:
            channel = self._channel
            if channel is None or not channel.alive:
                channel = Channel()
                self._channel = channel
            try:
                hello = channel.hello.result(self._start_timeout_s)
            except TimeoutError as error:
                channel.kill("it was killed because CUDA did not initialise")
                raise AgentError(
                    f"CUDA did not initialise within {self._start_timeout_s:g} s",
                    phase="device-helper",
                ) from error
            except HelperGoneError as error:
                raise AgentError(f"the CUDA helper: {error}", phase="device-helper") from error
            if hello.reason:
                self._channel = None
                channel.close()
                raise AgentError(hello.reason, phase="device-helper")
            return channel, hello

    @contextmanager
    def _turn(self, pid: int, call: str, timeout_s: float) -> Generator[_Known]:
        """Hold a process's turn: what is known of it is the holder's to read and write."""
        started = procfs.started(pid, zombies=True)
        with self._lock:
            known = self._known.get(pid)
            if known is None or known.started != started:
                # A pid is used again: what is known is of the process, not of the number.
                gone = [
                    known_pid
                    for known_pid, one in self._known.items()
                    if procfs.started(known_pid, zombies=True) != one.started
                ]
                for dead in gone:
                    del self._known[dead]
                known = _Known(started)
                if started:
                    self._known[pid] = known
        if not known.turn.acquire(timeout=timeout_s):
            raise AgentError(
                f"{call} of process {pid}: another call for it did not return within"
                f" {timeout_s:g} s",
                phase=f"device-{call}",
            )
        try:
            yield known
        finally:
            known.turn.release()
