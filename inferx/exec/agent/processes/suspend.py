"""Where there is no CRIU: pods can be frozen and thawed by their sandbox, but not written to files.

Freezing is the sandbox's. This is what stands in the snapshotter's place, to say why.
"""

from pathlib import Path
from typing import NoReturn

from inferx.exec.agent.ports import AgentError, Capability, Live, PodSpec

__all__ = ["SuspendOnly"]


class SuspendOnly:
    """A snapshotter that cannot.

    Args:
        reason: Why there is no other, as its probe told.
    """

    name = "suspend"

    def __init__(self, reason: str) -> None:
        self.refuses = reason

    def probe(self) -> Capability:
        """Tell the reason."""
        return Capability(name="snapshotter/suspend", available=False, reason=self.refuses)

    def dump(
        self,
        spec: PodSpec,
        live: Live,  # noqa: ARG002
        into: Path,  # noqa: ARG002
        *,
        leave: bool,  # noqa: ARG002
        keep_connections: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse; the pod goes on."""
        raise AgentError(f"pod {spec.pod}: cannot be dumped: {self.refuses}", phase="dump")

    def restore(
        self,
        spec: PodSpec,
        source: Path,  # noqa: ARG002
        *,
        lazy: bool = False,  # noqa: ARG002
        keep_connections: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse."""
        raise AgentError(f"pod {spec.pod}: cannot be restored: {self.refuses}", phase="restore")
