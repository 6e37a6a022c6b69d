"""The agent machine: one a node. Turns commands into device actions, and tells facts.

Laws:
1. A command of an older epoch than the newest obeyed is refused (INV-8), also one that waits.
2. A command is identified by (epoch, sequence); a repeated one is not carried out again: while it
   runs it is accepted, when it has ended its fact is told again.
3. Actions on one pod run in the order of their commands. Starts that build GPU state are
   serialised per GPU: two engines that size themselves at once mis-size each other, and a restore
   that meets a full GPU poisons its process.
4. Every command is answered by exactly one fact, success or failure.
5. A driver delivers to an agent only commands that were sent after the scheduler had taken in its
   `NodeJoined`: what was under way to its predecessor is lost with the connection.
6. The newest epoch is durable before anything of it is obeyed: after the agent's own restart an old
   leader is still refused.
7. A pod that ends by itself is told once, as a failure that answers nothing; one that is being
   worked on is left to that command's answer.
8. A leader that connects is told all that is here, in one message; what an older one had begun goes
   on, is busy in that message, and is told when it is over.
9. What could not be undone is told as it is: a pod that could not be ended is stuck, not gone; a
   snapshot that could not be dropped is there.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import assert_never

from inferx.core.commands import (
    AgentCommand,
    AgentEvent,
    Copy,
    Create,
    Drop,
    Join,
    NodeCommand,
    Perform,
    PodCommand,
    Report,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    Fact,
    FoundPod,
    LeaderChanged,
    Performed,
    PodExited,
    PodFailed,
    PodFound,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.machine.step import Record, Step
from inferx.core.types import NodeId, PodId

__all__ = ["EPOCH", "Agent"]

REMEMBERED = 1_024
"""Facts kept to answer repeated commands; older ones have long been received."""
EPOCH = "epoch"
"""Key of the record of the newest epoch."""
UNASKED = -1
"""Sequence of a fact that answers no command."""


class Agent:
    """One node's command queue. `step` is the only mutator; see the module's laws."""

    def __init__(self, node: NodeId, *, epoch: int = 0) -> None:
        """Start a node's agent; `epoch` is the newest that one before it has obeyed."""
        self._node = node
        self._epoch = epoch
        self._next_action = 0
        self._running: dict[int, NodeCommand] = {}
        self._accepted: dict[tuple[int, int], None] = {}
        self._facts: OrderedDict[tuple[int, int], Fact] = OrderedDict()
        self._waiting: deque[NodeCommand] = deque()
        self._busy_pods: dict[PodId, None] = {}
        self._busy_gpus: dict[int, None] = {}
        self._dead: OrderedDict[PodId, None] = OrderedDict()
        self.now_ns = 0

    def step(self, now_ns: int, events: Sequence[AgentEvent]) -> Step[AgentCommand]:
        """Take commands and ended actions in, give actions and facts out."""
        assert now_ns >= self.now_ns, "INV-5: time went back"
        self.now_ns = now_ns
        before = self._epoch
        out: list[AgentCommand] = []
        for event in events:
            if isinstance(event, Performed):
                self._ended(event, out)
            elif isinstance(event, PodExited):
                self._exited(event, out)
            elif isinstance(event, LeaderChanged):
                self._connected(event.epoch, out)
            else:
                self._ordered(event, out)
        rose = self._epoch > before
        records = (Record(EPOCH, str(self._epoch).encode()),) if rose else ()
        return Step(records, tuple(out), None)

    def _ordered(self, command: NodeCommand, out: list[AgentCommand]) -> None:
        key = (command.epoch, command.sequence)
        if command.epoch < self._epoch:
            out.append(Report(CommandRefused(self._node, command.epoch, command.sequence)))
            return
        self._follow(command.epoch, out)
        told = self._facts.get(key)
        if told is not None:
            out.append(Report(told))
            return
        if key in self._accepted:
            out.append(Report(CommandAccepted(self._node, command.epoch, command.sequence)))
            return
        self._accepted[key] = None
        self._waiting.append(command)
        self._advance(out)

    def _follow(self, epoch: int, out: list[AgentCommand]) -> None:
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        # What an older leader ordered and has not begun is void.
        void, self._waiting = self._waiting, deque()
        for old in void:
            self._tell(old, CommandRefused(self._node, old.epoch, old.sequence), out)

    def _connected(self, epoch: int, out: list[AgentCommand]) -> None:
        self._epoch = max(self._epoch, epoch)
        # What has not begun is not told, so it must not begin: it is ordered again where it counts.
        for told in self._waiting:
            del self._accepted[told.epoch, told.sequence]
        self._waiting.clear()
        busy = tuple(
            FoundPod(told.pod, told.function, told.gpus, "moving" if _moves(told) else "busy")
            for told in self._running.values()
            if not isinstance(told, Copy | Drop)
        )
        dropping = tuple(told.function for told in self._running.values() if isinstance(told, Drop))
        out.append(Join(busy, dropping))

    def _ended(self, event: Performed, out: list[AgentCommand]) -> None:
        command = self._running.pop(event.action)
        if not isinstance(command, Copy | Drop):
            del self._busy_pods[command.pod]
            for gpu in self._exclusive(command):
                del self._busy_gpus[gpu]
            left = isinstance(command, Snapshot) and command.leave
            ended = bool(event.error) or left or isinstance(command, Stop)
            if ended and not _stays(command, event):
                self._bury(command.pod)
        fact = self._fact(command, event)
        if command.epoch == self._epoch:
            self._tell(command, fact, out)
        elif not isinstance(command, Copy | Drop):
            # Whoever ordered it leads no more; its successor knows a busy pod.
            out.append(Report(self._found(command.pod, fact)))
        self._advance(out)

    def _found(self, pod: PodId, fact: Fact) -> PodFound | PodFailed:
        match fact:
            case PodReady():
                return PodFound(self._node, pod, "ready")
            case PodSuspended():
                return PodFound(self._node, pod, "suspended")
            case SnapshotTaken() if not fact.left:
                return PodFound(self._node, pod, "ready")
            case PodStuck():
                return PodFound(self._node, pod, "stuck")
            case _:
                return PodFailed(self._node, self._epoch, UNASKED, pod, "left")

    def _exited(self, event: PodExited, out: list[AgentCommand]) -> None:
        pod = event.pod
        if pod in self._busy_pods or pod in self._dead:
            return
        self._bury(pod)
        out.append(Report(PodFailed(self._node, self._epoch, UNASKED, pod, event.reason)))
        self._advance(out)

    def _bury(self, pod: PodId) -> None:
        self._dead[pod] = None
        if len(self._dead) > REMEMBERED:
            self._dead.popitem(last=False)

    def _tell(self, command: NodeCommand, fact: Fact, out: list[AgentCommand]) -> None:
        key = (command.epoch, command.sequence)
        self._accepted.pop(key, None)
        self._facts[key] = fact
        if len(self._facts) > REMEMBERED:
            self._facts.popitem(last=False)
        out.append(Report(fact))

    def _advance(self, out: list[AgentCommand]) -> None:
        """Start every waiting command whose pod and GPUs are free, oldest first."""
        if not self._waiting:
            return
        held: deque[NodeCommand] = deque()
        blocked_pods: dict[PodId, None] = {}
        blocked_gpus: dict[int, None] = {}
        while self._waiting:
            command = self._waiting.popleft()
            if isinstance(command, Copy | Drop):
                self._perform(command, out)
                continue
            gpus = self._exclusive(command)
            pod = command.pod
            if (
                pod in self._busy_pods
                or pod in blocked_pods
                or any(gpu in self._busy_gpus or gpu in blocked_gpus for gpu in gpus)
            ):
                held.append(command)
                blocked_pods[pod] = None
                blocked_gpus.update(dict.fromkeys(gpus))
                continue
            if pod in self._dead and not isinstance(command, Stop):
                # It failed while this command was on its way.
                self._tell(command, self._failed(command, "pod is gone"), out)
                continue
            self._busy_pods[pod] = None
            self._busy_gpus.update(dict.fromkeys(gpus))
            self._perform(command, out)
        self._waiting = held

    def _exclusive(self, command: PodCommand) -> tuple[int, ...]:
        return command.gpus if isinstance(command, Create | Restore | Resume) else ()

    def _perform(self, command: NodeCommand, out: list[AgentCommand]) -> None:
        action = self._next_action
        self._next_action += 1
        self._running[action] = command
        out.append(Perform(action, command))

    def _failed(self, command: PodCommand, reason: str) -> Fact:
        return PodFailed(self._node, command.epoch, command.sequence, command.pod, reason)

    def _fact(self, command: NodeCommand, event: Performed) -> Fact:
        node, epoch, sequence = self._node, command.epoch, command.sequence
        match command:
            case Copy():
                return SnapshotCopied(
                    node, epoch, sequence, command.function, command.target, not event.error
                )
            case Drop():
                return SnapshotDropped(
                    node, epoch, sequence, command.function, command.tier, not event.error
                )
            case _ if _stays(command, event):
                return PodStuck(node, epoch, sequence, command.pod, event.error)
            case Stop():
                return PodGone(node, epoch, sequence, command.pod)
            case _ if event.error:
                return self._failed(command, event.error)
            case Create() | Resume():
                return PodReady(node, epoch, sequence, command.pod, event.phases)
            case Restore():
                if command.gpus:
                    return PodReady(node, epoch, sequence, command.pod, event.phases)
                return PodSuspended(node, epoch, sequence, command.pod, event.phases)
            case Suspend():
                return PodSuspended(node, epoch, sequence, command.pod, event.phases)
            case Snapshot():
                return SnapshotTaken(
                    node, epoch, sequence, command.pod, command.leave, event.phases
                )
            case _:
                assert_never(command)


def _stays(command: NodeCommand, event: Performed) -> bool:
    """Tell whether a pod that was to end is there still."""
    return bool(event.error) and (event.stays or isinstance(command, Stop))


def _moves(command: PodCommand) -> bool:
    """Tell whether a pod's GPU state is, or will be, in host memory while a command is at work."""
    return isinstance(command, Resume | Suspend) or not command.gpus
