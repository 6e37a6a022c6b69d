"""The agent as a running service: the machine under its driver, actions in threads, facts out.

Commands come in, facts go out; who carries them there and back is another's subject. Everything
else that the node must tell happens on timers: pods that ended by themselves, and pods that hold
more GPU memory than their share.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inferx.core.commands import AgentCommand, AgentEvent, Join, NodeCommand, Perform, Report
from inferx.core.events import Fact, FoundPod, LeaderChanged, NodeJoined, Performed, PodExited
from inferx.core.machine.agent import EPOCH, REMEMBERED, Agent
from inferx.core.machine.step import Record
from inferx.core.types import FunctionId, NodeId, PodId
from inferx.exec.agent.action_log import ActionLog
from inferx.exec.agent.executor import Executor, Recovered
from inferx.exec.agent.guarding import Guarding
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.pod_records import PodRecord
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import told
from inferx.exec.agent.traces import ActionTraces
from inferx.exec.clock import Clock, WallClock
from inferx.exec.driver import Driver
from inferx.exec.files import write_whole
from inferx.exec.journal import Journal, open_journal
from inferx.exec.logs import ids
from inferx.exec.metrics.agent import AgentCounts

__all__ = ["AgentService"]

WORKERS = 16
"""Actions at once: each mostly waits, for a process, a disk or a device."""
ENDINGS = 4
"""Pods at once of which what is left is ended: one that cannot be takes long, and stays."""
REPORTS_PER_BOOT = 1 << 32
"""Reports are numbered through all starts: each counts from its own number."""
LOOK_S = 1.0
"""How often pods are looked after."""
FACTS_LIMIT = REMEMBERED
"""Facts that nobody has taken: no more than the machine can tell again when it is asked again."""

_log = logging.getLogger(__name__)


class AgentService:
    """One node's agent.

    Args:
        executor: What carries commands out.
        node: The scheduler's id of this node.
        state: Folder of the two numbers that outlive the service: epoch and boot.
        traces: Takes what actions did; None traces nothing.
        name: What the node is called in its journal.
        journals: Folder that its journal is written to; None writes none.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        node: NodeId,
        state: Path,
        name: str = "",
        journals: Path | None = None,
        clock: Clock | None = None,
        traces: ActionTraces | None = None,
    ) -> None:
        self.executor = executor
        self.node = node
        self._state = state
        self._clock = clock or WallClock()
        self._done = ActionLog(executor.pods.functions, traces)
        epoch = self._number(EPOCH)
        machine = Agent(node, epoch=epoch)
        self._journal: Journal | None = None
        if journals is not None:
            made_of = {"node": node, "epoch": epoch, "name": name}
            file = f"agent-{name}-{self._clock.now_ns()}"
            self._journal = open_journal(journals, file, "agent", made_of, machine)
        self._driver: Driver[AgentEvent, AgentCommand] = Driver(
            f"agent/{node}", self._journal or machine, self._clock, self
        )
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="action")
        self._reports = 0
        self._facts: deque[Fact] = deque()
        self._overflowed = False
        """More was told than anybody took: nothing is told before the node has joined anew."""
        self._told = asyncio.Event()
        self._busy: set[PodId] = set()
        self._ending: set[PodId] = set()
        self._few = asyncio.Semaphore(ENDINGS)
        self._actions: set[asyncio.Task[None]] = set()
        self.guard = Guarding(executor.pods, self._clock, self._is_idle)
        self.counts = AgentCounts()
        self.last_errors: deque[str] = deque(maxlen=32)
        """The latest failures in full; a fact names only the step."""

    # -- in and out ---
    def command(self, command: NodeCommand, traceparent: str = "") -> None:
        """Take a command, of a trace; its fact comes among `facts`."""
        self._done.told(command, traceparent)
        self._driver.post(command)

    def follow(self, epoch: int) -> AsyncIterator[Fact]:
        """Tell a leader all that is here, then what happens; what another was not told is dropped.

        That is contained in what is here, or told again when its command is repeated.
        """
        self._facts.clear()
        self._overflowed = False
        self._driver.post(LeaderChanged(epoch))
        return self.facts()

    def address_of(self, pod: PodId) -> str:
        """Return where a pod serves; "" where there is none, or it serves nowhere."""
        try:
            return self.executor.pods.get(pod).record.address
        except AgentError:
            return ""

    async def facts(self) -> AsyncIterator[Fact]:
        """Yield facts as they come; for one listener.

        Raises:
            AgentError: They came faster than they were taken. The next listener is told all that
                is here, from a `NodeJoined` on.
        """
        if self._overflowed:
            self._overflowed = False
            self._driver.post(LeaderChanged(0))
        while True:
            if self._overflowed:
                raise AgentError(f"{FACTS_LIMIT} facts were not taken; expected a faster listener")
            while self._facts:
                yield self._facts.popleft()
            self._told.clear()
            if not self._facts:
                await self._told.wait()

    # -- running ---
    async def run(self, *, ready: Callable[[Recovered], None] = lambda _: None) -> None:
        """Recover, join, and work until cancelled; what is under way then is waited for."""
        loop = asyncio.get_running_loop()
        recovered = await loop.run_in_executor(self._threads, self.executor.recover)
        boot = self._number("boot") + 1
        write_whole(self._state / "boot", str(boot).encode())
        self._reports = boot * REPORTS_PER_BOOT
        self._join(())
        ready(recovered)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.run(), name=self._driver.name)
                tasks.create_task(self._look_after(), name="looking after pods")
        finally:
            if self._actions:
                await asyncio.gather(*self._actions, return_exceptions=True)
            self._threads.shutdown()
            if self._journal is not None:
                self._journal.close()

    # -- effects of the machine ---
    async def persist(self, records: tuple[Record, ...]) -> None:
        """Make the newest epoch durable."""
        for record in records:
            await asyncio.to_thread(write_whole, self._state / record.key, record.value)

    def send(self, command: AgentCommand) -> None:
        """Begin an action, or tell a fact."""
        if isinstance(command, Report):
            self._tell(command.fact)
            return
        if isinstance(command, Join):
            self._join(command.busy, command.dropping)
            return
        self._begin(self._act(command))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done meanwhile, and not be left half done when the service ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._actions.add(task)
        task.add_done_callback(self._actions.discard)

    def _join(self, busy: Sequence[FoundPod], dropping: Sequence[FunctionId] = ()) -> None:
        """Tell all that is here."""
        worked_on = {found.pod for found in busy}
        rest = (found for found in self.executor.running() if found.pod not in worked_on)
        on_disk = tuple(one for one in self.executor.on_disk() if one not in dropping)
        self._tell(NodeJoined(self.node, self._reports, (*busy, *rest), on_disk))
        self._reports += 1

    async def _act(self, perform: Perform) -> None:
        command, phases = perform.command, Phases()
        pod: PodId | None = getattr(command, "pod", None)
        if pod is not None:
            self._busy.add(pod)
        error, stays = "", False
        loop, began_ns = asyncio.get_running_loop(), self._clock.now_ns()
        try:
            await loop.run_in_executor(self._threads, self.executor.perform, command, phases)
        except AgentError as failed:
            error, stays = failed.phase or "agent", failed.stays
            self._failed(command, "; ".join((str(failed), *getattr(failed, "__notes__", ()))))
        except Exception as defect:  # noqa: BLE001 a defect of ours; it is answered all the same
            error = "agent"
            _log.exception("%s", type(command).__name__, extra=ids(**self._done.about(command)))
            self._failed(command, f"{type(defect).__name__}: {defect}")
            if pod is not None:
                stays = not await loop.run_in_executor(self._threads, self._can_end, pod)
        finally:
            if pod is not None:
                self._busy.discard(pod)
        self._done.performed(command, phases, began_ns, self._clock.now_ns(), error)
        self.counts.performed(type(command).__name__.lower(), phases.as_tuple(), error)
        self._driver.post(Performed(perform.action, phases.as_tuple(), error, stays))

    def _can_end(self, pod: PodId) -> bool:
        """End a pod that nobody knows how to go on with; tell whether it has ended."""
        try:
            self.executor.pods.stop(pod)
        except AgentError as error:
            _log.warning("pod %s cannot be ended: %s", pod, error, extra=ids(pod=pod))
            return False
        return True

    def _failed(self, command: NodeCommand, why: str) -> None:
        text = f"{type(command).__name__.lower()} {getattr(command, 'pod', '')}: {why}"
        self._noted(text, **self._done.about(command))

    def _noted(self, text: str, **about: object) -> None:
        self.last_errors.append(text)
        _log.warning("%s", text, extra=ids(**about))

    def _tell(self, fact: Fact) -> None:
        if self._overflowed:
            return
        if len(self._facts) == FACTS_LIMIT:
            # Not a part of them: who goes on without the rest would believe what is not so.
            _log.warning("%d facts were not taken: this node joins anew", FACTS_LIMIT)
            self._facts.clear()
            self._overflowed = True
        else:
            self._facts.append(fact)
        self._told.set()

    # -- timers ---
    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for one, reason in await loop.run_in_executor(self._threads, self._ended_pods):
                    self._ending.add(PodId(one.pod))
                    self._begin(self._end(one, reason))
                await loop.run_in_executor(self._threads, self._trim_logs)
            except AgentError as error:
                _log.warning("looking after pods: %s", error)

    def _trim_logs(self) -> None:
        """Hold what pods write to its bound; in between, a fast writer may exceed it."""
        pods = self.executor.pods
        for one in pods.known():
            with told(f"the output of pod {one.pod} cannot be bounded", phase="logs"):
                pods.logs.trim(pods.records.place(one.pod))

    def _ended_pods(self) -> list[tuple[PodRecord, str]]:
        """Find what is to end: pods whose process or GPU is gone, or that exceed their share."""
        pods, node = self.executor.pods, self.executor.pods.node
        # Known first, looked for after: one that is started in between is not missed.
        idle = {PodId(one.record.pod): one for one in pods.all() if self._is_left(one.record)}
        live = frozenset(one.pod for one in node.sandbox.live())
        # Noted before the pod is killed for it.
        lost = pods.pages.look()
        stuck = [one for one in pods.stuck() if pods.records.name(one.pod) not in live]
        ended = [(one, "exited") for one in stuck if self._is_left(one)]
        for one in idle.values():
            if why := lost.get(one.spec.pod):
                self._noted(str(why))
                ended.append((one.record, "pages"))
            elif one.spec.pod not in live:
                ended.append((one.record, "exited"))
        try:
            guarded = [one for one in idle.values() if one.spec.pod in live - lost.keys()]
            ended += [(idle[pod].record, reason) for pod, reason in self.guard.look(guarded)]
        except AgentError as error:
            # Whose process is gone is told all the same.
            _log.warning("GPU memory of pods cannot be looked at: %s", error)
        return ended

    async def _end(self, one: PodRecord, reason: str) -> None:
        """End what is left of a pod, and tell that it has ended.

        One that cannot be ended is stuck: it is told once it can be, and keeps no other waiting.
        """
        loop, pod = asyncio.get_running_loop(), PodId(one.pod)
        try:
            async with self._few:
                if await loop.run_in_executor(self._threads, self._ended, one):
                    self._driver.post(PodExited(pod, reason))
        finally:
            self._ending.discard(pod)

    def _ended(self, one: PodRecord) -> bool:
        """End a pod unless something has been done to it since it was looked at, or is."""
        pod = PodId(one.pod)
        return one in self.executor.pods.known() and pod not in self._busy and self._can_end(pod)

    def _is_left(self, one: PodRecord) -> bool:
        """Whether nobody is at a pod: no command, and nothing that ends it."""
        return one.pod not in self._busy and one.pod not in self._ending

    def _is_idle(self, one: Pod) -> bool:
        """Whether nothing has been done to a pod since it was looked at, nor is."""
        return one in self.executor.pods.all() and self._is_left(one.record)

    # -- numbers that outlive it ---
    def _number(self, name: str) -> int:
        file = self._state / name
        try:
            return int(file.read_bytes())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise AgentError(f"{file}: not a number; expected one, or no file") from error
