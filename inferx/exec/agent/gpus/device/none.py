"""For nodes whose pods have no GPU state."""

from collections.abc import Mapping

from inferx.exec.agent.ports import AgentError, Capability, DeviceState

__all__ = ["NoCheckpointer"]


class NoCheckpointer:
    """No process has GPU state, so there is none to move."""

    def __init__(self, reason: str) -> None:
        """Keep why there is no other, for whoever asks."""
        self._reason = reason

    def probe(self) -> Capability:
        """Tell the reason."""
        return Capability(name="device/none", available=False, reason=self._reason)

    def state(self, pid: int) -> DeviceState:
        """Return `none`."""
        del pid
        return DeviceState("none")

    def lock(self, pid: int, *, timeout_s: float) -> None:
        """Refuse."""
        del timeout_s
        raise self._refusal("lock", pid)

    def checkpoint(self, pid: int, *, timeout_s: float) -> None:
        """Refuse."""
        del timeout_s
        raise self._refusal("checkpoint", pid)

    def restore(self, pid: int, *, gpu_map: Mapping[str, str], timeout_s: float) -> None:
        """Refuse."""
        del gpu_map, timeout_s
        raise self._refusal("restore", pid)

    def unlock(self, pid: int, *, timeout_s: float) -> None:
        """Refuse."""
        del timeout_s
        raise self._refusal("unlock", pid)

    def close(self) -> None:
        """Nothing to give back."""

    def _refusal(self, call: str, pid: int) -> AgentError:
        return AgentError(f"cannot {call} process {pid}: {self._reason}", phase=f"device-{call}")
