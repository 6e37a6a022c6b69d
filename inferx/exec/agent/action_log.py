"""What an agent did, as lines in its log, with the ids that they are about."""

import logging
from collections.abc import Mapping

from inferx.core.commands import NodeCommand
from inferx.core.types import FunctionId
from inferx.core.units import NS_PER_S
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.traces import ActionTraces
from inferx.exec.logs import function_ids, ids

__all__ = ["ActionLog"]

_log = logging.getLogger(__name__)


class ActionLog:
    """Tells the log, and the traces, of actions.

    Args:
        functions: What this node knows of functions.
        traces: Takes what actions did; None traces nothing.
    """

    def __init__(
        self, functions: Mapping[FunctionId, Deployed], traces: ActionTraces | None
    ) -> None:
        self._functions = functions
        self._traces = traces

    def told(self, command: NodeCommand, traceparent: str) -> None:
        """Take in which trace a command belongs to, if any."""
        if self._traces is not None and traceparent:
            self._traces.told(command, traceparent)

    def performed(
        self, command: NodeCommand, phases: Phases, began_ns: int, ended_ns: int, error: str
    ) -> None:
        """Tell what was done; what failed has been told with what went wrong."""
        named, trace = self._named(command), ""
        if self._traces is not None:
            trace = self._traces.performed(command, named, phases, began_ns, ended_ns, error)
        if not error:
            took_ns = ended_ns - began_ns
            kind, whom = type(command).__name__.lower(), getattr(command, "pod", named)
            about = {**self.about(command), "trace": trace or None, "took_ns": took_ns}
            _log.info("%s %s in %.3f s", kind, whom, took_ns / NS_PER_S, extra=ids(**about))

    def about(self, command: NodeCommand) -> dict[str, object]:
        """Return the ids that a line about a command has."""
        return {
            "command": type(command).__name__.lower(),
            **function_ids(self._named(command)),
            "pod": getattr(command, "pod", None),
            "epoch": command.epoch,
            "sequence": command.sequence,
        }

    def _named(self, command: NodeCommand) -> str:
        known = self._functions.get(command.function)
        return "" if known is None else known.launch.function
