"""GPU state of processes: moved to host memory and back by the CUDA driver, through one helper."""

from inferx.exec.agent.device.checkpointer import CudaCheckpointer
from inferx.exec.agent.device.files import gpu_files
from inferx.exec.agent.device.none import NoCheckpointer

__all__ = ["CudaCheckpointer", "NoCheckpointer", "gpu_files"]
