"""Commands on their way to nodes: numbered, repeated until they are answered, answered once."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from inferx.core.cluster import Cluster
from inferx.core.commands import NodeCommand, SchedulerCommand
from inferx.core.machine.answers import Answer, answers
from inferx.core.types import NodeId
from inferx.core.units import NS_PER_S

__all__ = ["Outbox"]

RETRY_NS = 10 * NS_PER_S
"""A command unanswered for this long is sent again; the wait doubles each time."""
RETRY_LIMIT = 8
"""After so many repetitions in a row without a sign of life the node is lost."""
UNSENT = -1
"""Tries of a command whose time to be sent has not come."""


@dataclass(slots=True)
class _Pending:
    command: NodeCommand
    tries: int = 0


class Outbox:
    """Keeps each command until the one fact that answers it has come."""

    def __init__(
        self, cluster: Cluster, out: list[SchedulerCommand], count: Callable[[str], None]
    ) -> None:
        self._c = cluster
        self._out = out
        self._count = count
        self._sequence = 0
        self._retries: list[tuple[int, int]] = []
        self._pending: dict[int, _Pending] = {}

    def __len__(self) -> int:
        """Return how many commands are not answered yet."""
        return len(self._pending)

    def number(self) -> int:
        """Return the next command's sequence number."""
        self._sequence += 1
        return self._sequence

    def send(self, command: NodeCommand, *, after_ns: int = 0) -> None:
        """Send a command, now or after a while, and again until it is answered."""
        entry = self._pending[command.sequence] = _Pending(command)
        if after_ns:
            entry.tries = UNSENT
        else:
            self._out.append(command)
        due_ns = self._c.now_ns + (after_ns or RETRY_NS)
        heapq.heappush(self._retries, (due_ns, command.sequence))

    @property
    def latest(self) -> int:
        """The number of the latest command."""
        return self._sequence

    def again(self, node: NodeId, *, up_to: int) -> None:
        """Send what a node has not answered up to a number once more, now, and later as if anew."""
        mine = [
            sequence
            for sequence, entry in self._pending.items()
            if entry.command.node == node and sequence <= up_to and entry.tries != UNSENT
        ]
        if not mine:
            return
        self._retries = [one for one in self._retries if one[1] not in mine]
        for sequence in mine:
            entry = self._pending[sequence]
            entry.tries = 0
            self._count("commands_repeated")
            self._out.append(entry.command)
            self._retries.append((self._c.now_ns + RETRY_NS, sequence))
        heapq.heapify(self._retries)

    def unanswered(self) -> list[NodeCommand]:
        """Return the commands that wait for their fact, in the order of their numbers."""
        return [entry.command for entry in self._pending.values()]

    def answered(self, fact: Answer) -> NodeCommand | None:
        """Take the command that a fact answers; None if it was answered before.

        What is no answer to it leaves it unanswered: it is repeated, and in the end its node lost.
        """
        entry = self._pending.get(fact.sequence)
        if entry is None:
            return None
        if not answers(fact, entry.command):
            self._count("wrong_answers")
            return None
        del self._pending[fact.sequence]
        return entry.command

    def accepted(self, sequence: int) -> None:
        """Note a sign of life: the command is being carried out."""
        entry = self._pending.get(sequence)
        if entry is not None:
            entry.tries = min(entry.tries, 1)

    def void(self, concerns: Callable[[NodeCommand], bool]) -> list[NodeCommand]:
        """Forget, and return, commands whose answers would mean nothing any more."""
        gone = [command for command in self.unanswered() if concerns(command)]
        for command in gone:
            del self._pending[command.sequence]
        return gone

    def deadline_ns(self) -> int | None:
        """When the next command has to be repeated."""
        retries = self._retries
        while retries and retries[0][1] not in self._pending:
            heapq.heappop(retries)
        return retries[0][0] if retries else None

    def repeat(self) -> list[NodeId]:
        """Send again what is due; return nodes that never answered."""
        lost: list[NodeId] = []
        now = self._c.now_ns
        while (due := self.deadline_ns()) is not None and due <= now:
            _, sequence = heapq.heappop(self._retries)
            entry = self._pending[sequence]
            entry.tries += 1
            if entry.tries > RETRY_LIMIT:
                if entry.command.node not in lost:
                    lost.append(entry.command.node)
                continue
            if entry.tries:
                self._count("commands_repeated")
            self._out.append(entry.command)
            heapq.heappush(self._retries, (now + (RETRY_NS << entry.tries), sequence))
        return lost
