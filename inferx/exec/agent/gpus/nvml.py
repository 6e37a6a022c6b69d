"""GPUs, MIG devices and who holds their memory, as NVML tells through nvidia-ml-py.

What commands can name is numbered from 0 in NVML's order: GPUs, and each device of one that is cut.
A GPU that falls off its bus keeps its numbers while this runs. After one was cut anew, the agent is
to be started again.

NVML is initialised once and kept: on nodes with many GPUs that takes seconds. A node without the
library, without a driver or without GPUs has an empty inventory and a reason; after NVML has
answered once, that it no longer does is an error. A GPU that has fallen off its bus is not told:
it takes no others with it.
"""

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from inferx.exec.agent.gpus.loaded import library_path
from inferx.exec.agent.ports import NO_INDEX, AgentError, Capability, Gpu, GpuProcess

__all__ = ["NvmlInventory"]


class NvmlInventory:
    """Asks NVML anew each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._reason = ""
        self._numbers: dict[int, int] = {}
        """How many numbers each GPU took when it was last seen."""

    def probe(self) -> Capability:
        """Tell driver, library and number of GPUs."""
        name = "gpu/nvml"
        if not self._open():
            return Capability(name=name, available=False, reason=self._reason)
        try:
            gpus = self.gpus()
            facts = {"driver": self.driver, "library": library_path("libnvidia-ml.so")}
        except AgentError as error:
            return Capability(name=name, available=False, reason=str(error))
        facts["gpus"] = str(sum(not gpu.parent for gpu in gpus))
        facts["mig_devices"] = str(sum(bool(gpu.parent) for gpu in gpus))
        if not gpus:
            return Capability(name=name, available=False, reason="no GPU", facts=facts)
        return Capability(name=name, available=True, facts=facts)

    @property
    def driver(self) -> str:
        """Driver version; empty without one."""
        if not self._open():
            return ""
        try:
            return _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError as error:
            raise _failed("driver version", error) from error

    def gpus(self) -> Sequence[Gpu]:
        """Return whole GPUs in NVML's order, each followed by its MIG devices."""
        if not self._open():
            return ()
        try:
            return tuple(gpu for gpu, _ in self._devices())
        except self._nvml.NVMLError as error:
            raise _failed("list of GPUs", error) from error

    def processes(self) -> Sequence[GpuProcess]:
        """Return what each process holds of each GPU, or of each MIG device where it is cut.

        Memory that NVML cannot tell, as of a process in another guest, counts as 0.
        """
        if not self._open():
            return ()
        found: list[GpuProcess] = []
        try:
            for gpu, handle in self._devices():
                if gpu.mig_enabled:
                    continue  # Its devices tell the same processes.
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    used = int(process.usedGpuMemory or 0)
                    found.append(GpuProcess(gpu.uuid, int(process.pid), used))
        except self._nvml.NVMLError as error:
            raise _failed("processes", error) from error
        return tuple(found)

    def close(self) -> None:
        """Give the library back."""
        with self._lock:
            nvml, self._nvml = self._nvml, None
            if nvml is not None:
                nvml.nvmlShutdown()

    def _open(self) -> bool:
        """Load and initialise the library unless that is done; keep the reason where it cannot."""
        with self._lock:
            if self._nvml is not None:
                return True
            try:
                nvml = importlib.import_module("pynvml")
            except ImportError as error:
                self._reason = f"nvidia-ml-py cannot be imported: {error}"
                return False
            try:
                nvml.nvmlInit()
            except nvml.NVMLError as error:
                self._reason = f"NVML: {error}"
                return False
            self._nvml = nvml
            return True

    def _devices(self) -> Iterator[tuple[Gpu, Any]]:
        nvml = self._nvml
        first = 0
        for row in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(row)
            except nvml.NVMLError_GpuIsLost:
                first += self._numbers.get(row, 1)
                continue
            whole = self._gpu(first, row, handle)
            yield whole, handle
            parts = self._parts(handle) if whole.mig_enabled else []
            for number, (place, part) in enumerate(parts, first):
                yield self._gpu(number, row, part, parent=whole.uuid, place=place), part
            self._numbers[row] = len(parts) if whole.mig_enabled else 1
            first += self._numbers[row]

    def _parts(self, handle: Any) -> list[tuple[int, Any]]:
        """Return the MIG devices of a GPU that is cut, each with its place."""
        nvml = self._nvml
        found: list[tuple[int, Any]] = []
        for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(nvml.NVMLError_NotFound):  # Places may be empty.
                found.append((place, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)))
        return found

    def _gpu(self, number: int, row: int, handle: Any, *, parent: str = "", place: int = 0) -> Gpu:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
        mig_enabled = False
        if not parent:
            try:
                mig_enabled = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
            except nvml.NVMLError_NotSupported:  # A chip that cannot be cut.
                mig_enabled = False
        return Gpu(
            index=NO_INDEX if mig_enabled else number,
            nvml_index=row,
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=name,
            memory_total=int(memory.total),
            memory_used=int(memory.used),
            parent=parent,
            place=place,
            mig_profile=name.rpartition(" MIG ")[2] if parent else "",
            mig_enabled=mig_enabled,
        )


def _text(value: Any) -> str:
    """Return a text of NVML, which older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _failed(what: str, error: Exception) -> AgentError:
    return AgentError(f"NVML, {what}: {error}", phase="inventory")
