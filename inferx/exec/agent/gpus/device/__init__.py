"""GPU state of processes: moved to host memory and back by the CUDA driver, through one helper."""

from inferx.exec.agent.gpus.device.checkpointer import CudaCheckpointer
from inferx.exec.agent.gpus.device.files import gpu_files
from inferx.exec.agent.gpus.device.none import NoCheckpointer

__all__ = ["CudaCheckpointer", "NoCheckpointer", "gpu_files"]
