"""An agent's spans: what was done for a command, and each step of it.

A command is known by its epoch and sequence number: the machine that orders it into actions knows
of no trace.
"""

from typing import Final

from inferx.core.commands import NodeCommand
from inferx.exec.agent.phases import Phases
from inferx.exec.logs import function_ids
from inferx.exec.tracing.context import TraceContext, new_span_id, parse
from inferx.exec.tracing.recorder import Recorder

__all__ = ["ActionTraces"]

LIMIT: Final = 4_096
"""Commands that wait for their turn; of more, the oldest are followed no more."""


class ActionTraces:
    """One agent's.

    Args:
        recorder: Takes spans.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: dict[tuple[int, int], TraceContext] = {}

    def told(self, command: NodeCommand, traceparent: str) -> None:
        """Take in which trace a command belongs to."""
        caller = parse(traceparent)
        if caller is None or not caller.sampled:
            return
        while len(self._told) >= LIMIT:
            del self._told[next(iter(self._told))]
        self._told[command.epoch, command.sequence] = caller

    def performed(
        self,
        command: NodeCommand,
        function: str,
        phases: Phases,
        began_ns: int,
        ended_ns: int,
        error: str,
    ) -> str:
        """Record what was done for a command, if its trace is recorded.

        Args:
            command: What was done.
            function: Of its pod, as `tenant/namespace/name@version`.
            phases: The steps.
            began_ns: When it was begun.
            ended_ns: When it had ended.
            error: The step that failed; "" where none did.

        Returns:
            The id of the trace; "" where nobody records one.
        """
        caller = self._told.pop((command.epoch, command.sequence), None)
        if caller is None:
            return ""
        action = caller._replace(span_id=new_span_id())
        self._recorder.record(
            type(command).__name__.lower(),
            action,
            caller.span_id,
            began_ns,
            ended_ns,
            kind="server",
            attributes={
                **{f"inferx.{key}": value for key, value in function_ids(function).items()},
                "inferx.pod": getattr(command, "pod", -1),
                "inferx.epoch": command.epoch,
                "inferx.sequence": command.sequence,
            },
            error=error,
        )
        for timing, offset_ns in zip(phases.timings, phases.offsets_ns, strict=True):
            start_ns = began_ns + offset_ns
            moved = {"inferx.moved_bytes": timing.moved_bytes} if timing.moved_bytes else {}
            self._recorder.record(
                f"phase {timing.phase}",
                action._replace(span_id=new_span_id()),
                action.span_id,
                start_ns,
                start_ns + timing.duration_ns,
                attributes=moved,
                error=timing.phase if error == timing.phase else "",
            )
        return f"{caller.trace_id:032x}"
