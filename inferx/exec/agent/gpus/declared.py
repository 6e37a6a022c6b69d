"""GPUs by declaration, for nodes without any: they are counted, and nothing is on them."""

from collections.abc import Sequence

from inferx.exec.agent.ports import Capability, Gpu, GpuProcess

__all__ = ["DeclaredGpus"]


class DeclaredGpus:
    """So many GPUs of so many bytes each; it is told wherever they are told."""

    driver = ""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._gpus = tuple(
            Gpu(
                index=index,
                nvml_index=index,
                uuid=f"declared-{index}",
                name="declared",
                memory_total=size,
                memory_used=0,
            )
            for index, size in enumerate(sizes)
        )

    def probe(self) -> Capability:
        """Tell that they are none."""
        facts = {"declared": str(len(self._gpus))}
        reason = "" if self._gpus else "no GPU is declared"
        return Capability(name="gpu/declared", available=not reason, reason=reason, facts=facts)

    def gpus(self) -> Sequence[Gpu]:
        """Return what was declared."""
        return self._gpus

    def processes(self) -> Sequence[GpuProcess]:
        """Return nothing: no process holds any of it."""
        return ()
