"""The one process that speaks to the CUDA driver for the agent: `python -m ... FD`.

It exists because a call may never return, and no thread can be ended from outside; because a
driver's fault must not end the agent; and because initialising CUDA takes seconds on a node with
eight GPUs, so that it is done once. It holds no memory on any GPU: it makes no context.

Calls are carried out at once, each in a thread of its own: the driver lets them run beside each
other, and one that hangs delays no other. The agent keeps their number within bounds. The helper
ends when the agent's end of the socket is closed, however that comes about.
"""

import ctypes
import importlib
import os
import socket
import sys
import threading
from typing import Any

import msgspec

from inferx.exec.agent.gpus.device.messages import PACKET_BYTES, Answer, Ask, Hello
from inferx.exec.agent.gpus.device.states import MINIMUM_CUDA, REMAP_CUDA, version
from inferx.exec.agent.gpus.loaded import library_path

__all__ = ["main"]


def _error_name(driver: Any, error: Any) -> str:
    _, name = driver.cuGetErrorName(error)
    return name.decode() if isinstance(name, bytes) else f"CUresult {int(error)}"


def _open() -> tuple[Any, Hello]:
    """Load and initialise the driver; the reason is in the hello where that fails."""
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        return None, Hello(reason=f"cuda-bindings cannot be imported: {error}")
    try:
        (result,) = driver.cuInit(0)
        _, cuda = driver.cuDriverGetVersion()
    except (RuntimeError, OSError) as failure:  # No library, or one without these functions.
        return None, Hello(reason=f"no CUDA driver: {str(failure).strip().splitlines()[0]}")
    library = library_path("libcuda.so")
    if int(result):
        return None, Hello(library=library, reason=f"cuInit: {_error_name(driver, result)}")
    if cuda < MINIMUM_CUDA:
        return None, Hello(
            cuda=cuda,
            library=library,
            reason=f"the driver's CUDA is {version(cuda)}:"
            f" checkpoints need {version(MINIMUM_CUDA)} or newer",
        )
    remap = cuda >= REMAP_CUDA and hasattr(driver, "CUcheckpointGpuPair")
    return driver, Hello(cuda=cuda, remap=remap, library=library)


def _uuid(driver: Any, raw: bytes) -> Any:
    uuid = driver.CUuuid()
    ctypes.memmove(uuid.getPtr(), raw, 16)  # Its bytes can be read, not set.
    return uuid


def _restore_args(driver: Any, ask: Ask) -> Any:
    if not ask.pairs:
        return None
    pairs: list[Any] = []
    for old, new in ask.pairs:
        pair = driver.CUcheckpointGpuPair()
        pair.oldUuid = _uuid(driver, old)
        pair.newUuid = _uuid(driver, new)
        pairs.append(pair)
    args = driver.CUcheckpointRestoreArgs()
    args.gpuPairs = pairs
    args.gpuPairsCount = len(pairs)
    return args


def _carry_out(driver: Any, ask: Ask) -> Answer:
    """Make one call; it returns when the driver does."""
    value = 0
    match ask.call:
        case "state":
            error, state = driver.cuCheckpointProcessGetState(ask.pid)
            value = 0 if state is None else int(state)
        case "lock":
            args = driver.CUcheckpointLockArgs()
            args.timeoutMs = ask.timeout_ms
            (error,) = driver.cuCheckpointProcessLock(ask.pid, args)
        case "checkpoint":
            (error,) = driver.cuCheckpointProcessCheckpoint(ask.pid, None)
        case "restore":
            (error,) = driver.cuCheckpointProcessRestore(ask.pid, _restore_args(driver, ask))
        case "unlock":
            (error,) = driver.cuCheckpointProcessUnlock(ask.pid, None)
        case _:
            raise AssertionError(f"the agent asked for {ask.call!r}")
    name = _error_name(driver, error) if int(error) else ""
    return Answer(serial=ask.serial, error=int(error), name=name, value=value)


def _die(failure: threading.ExceptHookArgs) -> None:
    """End at once where a call breaks in our own code: its caller would wait in vain."""
    sys.__excepthook__(failure.exc_type, failure.exc_value or Exception(), failure.exc_traceback)
    os._exit(1)


def main(fd: int) -> None:
    """Serve the agent on an inherited socket until its other end is closed."""
    channel = socket.socket(fileno=fd)
    driver, hello = _open()
    channel.send(msgspec.msgpack.encode(hello))
    if hello.reason:
        return
    decoder = msgspec.msgpack.Decoder(Ask)
    threading.excepthook = _die

    def work(ask: Ask) -> None:
        answer = _carry_out(driver, ask)
        channel.send(msgspec.msgpack.encode(answer))  # A packet is whole, whoever sends beside.

    while packet := channel.recv(PACKET_BYTES):
        threading.Thread(target=work, args=(decoder.decode(packet),), daemon=True).start()
    os._exit(0)  # Not by way of threads that may be inside the driver for ever.


if __name__ == "__main__":
    main(int(sys.argv[1]))
