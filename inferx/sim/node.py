"""A simulated node: the real agent machine over modelled devices, and the pods it runs."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.random import Generator

from inferx.core.commands import (
    AgentCommand,
    AgentEvent,
    Copy,
    Create,
    Drop,
    NodeCommand,
    Perform,
    Report,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import Fact, Performed, PhaseTiming
from inferx.core.machine.agent import Agent
from inferx.core.machine.step import Machine
from inferx.core.types import FunctionId, FunctionSpec, NodeId, PodId, Tier
from inferx.core.units import NS_PER_MS
from inferx.sim.clock import SimClock
from inferx.sim.device import NodeDevices
from inferx.sim.ledger import Ledger
from inferx.sim.profile import Operation, Profile
from inferx.sim.record import Cause
from inferx.sim.serving import GpuMeter, PodServer, ServingModel

__all__ = ["DOING", "Pods", "ServedPod", "SimNode", "Wrap"]

FAIL_NS = 10 * NS_PER_MS
"""How long it takes to notice that a process cannot be started."""

_CAUSE: dict[Tier, Cause] = {
    Tier.ABSENT: Cause.COLD,
    Tier.REMOTE: Cause.RESTORE_REMOTE,
    Tier.NVME: Cause.RESTORE_NVME,
    Tier.DRAM: Cause.RESUME,
}


class ServedPod:
    """A pod that serves: its server, since when, and how it was started."""

    __slots__ = ("cause", "node", "ready_ns", "server", "serves_tokens")

    def __init__(
        self, node: "SimNode", server: PodServer, ready_ns: int, cause: Cause, *, tokens: bool
    ) -> None:
        self.node = node
        self.server = server
        self.ready_ns = ready_ns
        self.cause = cause
        self.serves_tokens = tokens


Pods = dict[PodId, ServedPod]
Wrap = Callable[[str, Machine[Any, Any]], Machine[Any, Any]]
"""Takes a machine and its name; returns what is stepped in its stead."""


class _Nominal:
    """Token speed of a function that has none: plain requests carry their durations."""

    prefill_tokens_per_s = 1.0
    decode_base_ns = 1
    decode_per_request_ns = 1


class SimNode:
    """Runs one agent machine; carries out what it asks for; reports what it tells."""

    def __init__(
        self,
        clock: SimClock,
        node: NodeId,
        first_gpu: int,
        devices: NodeDevices,
        *,
        functions: tuple[FunctionSpec, ...],
        profile: Profile,
        serving: Callable[[FunctionId, str], ServingModel | None],
        ledger: Ledger,
        pods: Pods,
        rng: Generator,
        start_failures: float,
        wrap: Wrap,
        tell: Callable[[Fact], None],
        on_first: Callable[[int], object],
        on_finished: Callable[[int], object],
        on_aborted: Callable[[PodId, list[int]], None],
    ) -> None:
        self.id = node
        self.devices = devices
        self.meters = [GpuMeter() for _ in range(devices.node.gpus)]
        self.alive = True
        self._clock = clock
        self._first_gpu = first_gpu
        self._functions = functions
        self._profile = profile
        self._serving = serving
        self._ledger = ledger
        self._pods = pods
        self._rng = rng
        self._start_failures = start_failures
        self._tell = tell
        self._on_first = on_first
        self._on_finished = on_finished
        self._on_aborted = on_aborted
        self._wrap = wrap
        self.boot = 0
        """How often it has joined again."""
        self._agent = self._new_agent()
        self._images: dict[FunctionId, None] = {}
        """Functions that were started here: their image and weights are on the disk."""
        self._here: dict[PodId, FunctionId] = {}
        self._generation = 0
        """Grows when the node is lost: what was under way then must not be heard of."""

    def receive(self, command: NodeCommand) -> None:
        """Take a command from the scheduler."""
        if self.alive:
            self._step((command,))

    def _step(self, events: tuple[AgentEvent, ...]) -> None:
        out: tuple[AgentCommand, ...] = self._agent.step(self._clock.now_ns(), events).commands
        for command in out:
            if isinstance(command, Perform):
                self._perform(command)
            else:
                assert isinstance(command, Report), "no other leader connects in a simulation"
                self._tell(command.fact)

    # -- device actions ---
    def _perform(self, perform: Perform) -> None:
        command = perform.command
        spec = self._functions[command.function]
        generation = self._generation

        def done(phases: tuple[PhaseTiming, ...], error: str = "") -> None:
            if generation == self._generation:
                if not error:
                    self._succeeded(command)
                else:
                    self._ended(command)
                self._step((Performed(perform.action, phases, error),))

        def failed() -> None:
            done((), "start failed")

        self._began(command)
        if self._restores_nothing(command):
            self._clock.after(FAIL_NS, failed)
            return
        operation, source = self._operation(command)
        starts = isinstance(command, Create | Restore | Resume)
        if starts and self._start_failures and self._rng.random() < self._start_failures:
            self._clock.after(FAIL_NS, failed)
        elif isinstance(command, Drop) or not self._profile.offers(operation):
            # A mechanism without copies has nothing to move.
            self._clock.after(FAIL_NS, lambda: done(()))
        else:
            gpus = tuple(g - self._first_gpu for g in getattr(command, "gpus", ()))
            self._profile.run(
                operation, spec, self.devices, gpus=gpus, source=source, rng=self._rng, done=done
            )

    def _restores_nothing(self, command: NodeCommand) -> bool:
        """Tell whether a pod is to come back into host memory by a mechanism without restores.

        On GPUs a cold start stands in for the restore; without them it cannot.
        """
        to_host = isinstance(command, Restore) and not command.gpus
        return to_host and not self._profile.offers("restore")

    def _operation(self, command: NodeCommand) -> tuple[Operation, Tier]:
        """Return what a command comes to, and where its bytes are read.

        A mechanism that cannot restore or resume starts cold instead; one that cannot suspend or
        snapshot just ends the process.
        """
        operation, source = _OPERATION[type(command)], Tier.ABSENT
        match command:
            case Restore() if self._profile.offers("restore"):
                return operation, command.source
            case Resume() if self._profile.offers("resume"):
                return operation, Tier.DRAM
            case Create() | Restore() | Resume():
                source = Tier.NVME if command.function in self._images else Tier.REMOTE
                self._images[command.function] = None
                return "cold", source
            case Suspend() | Snapshot() if not self._profile.offers(operation):
                return "stop", source
            case Suspend():
                return operation, Tier.DRAM
            case Copy():
                return "copy_in" if command.target is Tier.NVME else "copy_out", command.source
            case _:
                return operation, source

    def _began(self, command: NodeCommand) -> None:
        if isinstance(command, Copy | Drop):
            return
        pod = command.pod
        if isinstance(command, Suspend | Stop) or (isinstance(command, Snapshot) and command.leave):
            self._unserve(pod)
        self._here[pod] = command.function
        self._span(command, DOING[type(command)], command.gpus)

    def _succeeded(self, command: NodeCommand) -> None:
        self._stored(command)
        if isinstance(command, Copy | Drop):
            return
        pod = command.pod
        match command:
            case Create() | Resume():
                tier = Tier.DRAM if isinstance(command, Resume) else Tier.ABSENT
                self._serve(command, _CAUSE[tier])
            case Restore() if command.gpus:
                offered = self._profile.offers("restore")
                self._serve(command, _CAUSE[command.source] if offered else Cause.COLD)
            case Restore() | Suspend():
                self._span(command, "standby", ())
            case Snapshot() if not command.leave:
                self._span(command, "idle", command.gpus)
            case _:
                self._end(pod)

    def _stored(self, command: NodeCommand) -> None:
        """Note what a command has put on the disk, or taken off it.

        A mechanism that has no such operation has put nothing there.
        """
        disks, now = self._ledger.disks, self._clock.now_ns()
        match command:
            case Drop(tier=Tier.NVME):
                disks.deleted(now, self.id, command.function)
            case Snapshot() | Copy(target=Tier.NVME) | Restore(source=Tier.REMOTE, keep=True) if (
                self._profile.offers(_OPERATION[type(command)])
            ):
                disks.wrote(now, self.id, command.function)
            case _:
                pass

    def stock(self, functions: Sequence[FunctionId]) -> None:
        """Put snapshots on the disk before the run begins, in order, those that fit."""
        room_bytes = self.devices.node.nvme_bytes
        self._ledger.disks.stock(self._clock.now_ns(), self.id, functions, room_bytes)

    def _ended(self, command: NodeCommand) -> None:
        if not isinstance(command, Copy | Drop):
            self._unserve(command.pod)
            self._end(command.pod)

    def _end(self, pod: PodId) -> None:
        self._here.pop(pod, None)
        self._ledger.leave(self._clock.now_ns(), pod)

    def _span(
        self,
        command: Create | Restore | Resume | Suspend | Snapshot | Stop,
        state: str,
        gpus: tuple[int, ...],
    ) -> None:
        spec = self._functions[command.function]
        suspended = state in ("standby", "suspending", "resuming") or not command.gpus
        self._ledger.enter(
            self._clock.now_ns(),
            command.pod,
            state,
            function=command.function,
            node=self.id,
            gpus=gpus,
            host_bytes=spec.host_bytes + (spec.device_bytes if suspended else 0),
        )

    # -- serving ---
    def _serve(self, command: Create | Restore | Resume, cause: Cause) -> None:
        spec = self._functions[command.function]
        serving = self._serving(command.function, self.devices.node.gpu_type)
        server = PodServer(
            self._clock,
            [self.meters[gpu - self._first_gpu] for gpu in command.gpus],
            serving if serving is not None else _Nominal(),
            interference=self._profile.interference(spec.enforcement),
            on_first=self._on_first,
            on_finished=self._on_finished,
        )
        self._pods[command.pod] = ServedPod(
            self, server, self._clock.now_ns(), cause, tokens=serving is not None
        )
        self._span(command, "idle", command.gpus)

    def _unserve(self, pod: PodId) -> None:
        served = self._pods.pop(pod, None)
        if served is not None and served.server.inflight:
            self._on_aborted(pod, served.server.abort_all())

    # -- faults ---
    def lose(self) -> None:
        """The node disappears with all it runs."""
        self.alive = False
        self._generation += 1
        self.devices.abort_all()
        for pod in list(self._here):
            self._unserve(pod)
            self._end(pod)
        self._ledger.disks.lost(self._clock.now_ns(), self.id)
        self._images.clear()

    def rejoin(self) -> None:
        """The node is back, empty."""
        self.alive = True
        self.boot += 1
        self._agent = self._new_agent()

    def _new_agent(self) -> Machine[AgentEvent, AgentCommand]:
        return self._wrap(f"agent/{self.id}/{self.boot}", Agent(self.id))

    def busy_ns(self) -> list[int]:
        """Return for how long each GPU was at work."""
        now = self._clock.now_ns()
        return [meter.busy_ns(now) for meter in self.meters]


_OPERATION: dict[type[NodeCommand], Operation] = {
    Create: "cold",
    Restore: "restore",
    Resume: "resume",
    Suspend: "suspend",
    Snapshot: "snapshot",
    Stop: "stop",
    Copy: "copy_in",
    Drop: "stop",
}
DOING: dict[type[NodeCommand], str] = {
    Create: "creating",
    Restore: "restoring",
    Resume: "resuming",
    Suspend: "suspending",
    Snapshot: "snapshotting",
    Stop: "terminating",
}
"""What a command does to its pod, in the ledger's words."""
