"""Runs the rounds of a bench on a node's own adapters, one pod after another.

Laws:
1. Memory and answer are compared after restores with those of before; a difference is an error.
2. One pod runs at a time, but for clones. What is left of a round that was cut short, `opening`
   removes.
"""

import itertools
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from inferx.core.types import FunctionId, PodId
from inferx.exec.agent.bench import client
from inferx.exec.agent.bench.floor import forget, large_files, read_floor, write_floor
from inferx.exec.agent.bench.plan import CLONES, Plan, Subject
from inferx.exec.agent.bench.results import Clones, Floor, Round, Step, StepName
from inferx.exec.agent.bench.weights import write
from inferx.exec.agent.freezing import Freezing
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pods import Pod
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Manifest, TierName

__all__ = ["Bench"]


class Bench:
    """Measures on the pods of one node."""

    def __init__(self, freezing: Freezing, plan: Plan, weights: Path) -> None:
        self.pods = freezing.pods
        self.node = freezing.pods.node
        self.plan = plan
        self._freezing = freezing
        self._weights = weights
        self._ids = itertools.count(1)
        self._texts: dict[FunctionId, str] = {}

    @contextmanager
    def holding(self, subject: Subject) -> Generator[Path]:
        """Have a worker's weights on disk, for the body."""
        path = self._weights / f"{subject.engine}-{subject.weight_bytes}.bin"
        write(path, subject, seed=self.plan.seed)
        try:
            yield path
        finally:
            path.unlink()

    def round(self, subject: Subject, tier: TierName, tell: Callable[[str], None]) -> Round:
        """Take one pod through its life; its weights are held.

        Raises:
            AgentError: Something failed, or what came back was not what was there.
        """
        function = self.function(subject)
        tell("starting")
        steps, pod, digest = self.started(function)
        tell("dumping")
        manifest, dumped = self.dump(pod, tier)
        floors: list[Floor] = []
        skipped: dict[str, str] = {}
        try:
            folder = self._tier(tier)
            with folder.hold(manifest.id, "bench", now_ns=0) as held:
                files = large_files(held.folder)
                tell("measuring the floor")
                floors += [write_floor(files, folder.root), read_floor("read", files)]
                tell("restoring")
                steps += [dumped, *self.restored("restore", function, manifest, digest)]
                if tier == "dram":
                    skipped["restore_cold"] = "memory has no cache that could be cold"
                else:
                    tell("restoring from a cold cache")
                    # Not counted: below this host's cache may be another, of a hypervisor or of the
                    # disk, which the first reader fills for the second.
                    forget(files)
                    read_floor("read_cold", files)
                    forget(files)
                    floors.append(read_floor("read_cold", files))
                    forget(files)
                    steps += self.restored("restore_cold", function, manifest)
                tell("restoring lazily")
                try:
                    steps += self.restored("restore_lazy", function, manifest)
                except AgentError as error:
                    skipped["restore_lazy"] = str(error)
        finally:
            self.node.store.delete(manifest.id)
        return Round(
            engine=subject.engine,
            weight_bytes=subject.weight_bytes,
            tier=tier,
            snapshot_bytes=manifest.size_bytes,
            steps=tuple(steps),
            floors=tuple(floors),
            skipped=skipped,
        )

    def clones(self, subject: Subject, tier: TierName) -> Clones:
        """Restore several pods of one snapshot at once; each must have the memory of the first.

        Raises:
            AgentError: As in `round`.
        """
        function = self.function(subject)
        _, pod, digest = self.started(function)
        manifest, _ = self.dump(pod, tier)
        ids = [PodId(next(self._ids)) for _ in range(CLONES)]
        began = time.perf_counter()

        def restore(clone: PodId) -> float:
            one = self._freezing.restore(
                clone, function, (), Phases(), snapshot=manifest.id, lazy=False
            )
            self._require_answer(one, function)
            return time.perf_counter() - began

        try:
            with ThreadPoolExecutor(CLONES) as threads:
                each = list(threads.map(restore, ids))
            for clone in ids:
                self._require_memory(self.pods.get(clone), digest)
        finally:
            for clone in ids:
                self.pods.stop(clone)
            self.node.store.delete(manifest.id)
        return Clones(
            engine=subject.engine,
            weight_bytes=subject.weight_bytes,
            tier=tier,
            snapshot_bytes=manifest.size_bytes,
            seconds=max(each),
            each_s=tuple(each),
        )

    # -- parts of a life ---
    def started(self, function: FunctionId) -> tuple[list[Step], PodId, str]:
        """Start a pod, suspend and resume it; return how long, which, and its memory's digest."""
        pod = PodId(next(self._ids))
        cold, phases = _clock(), Phases()
        one = self.pods.create(pod, function, (), phases)
        text = client.answer(one.record.address)
        steps = [cold("cold", phases)]
        if self._texts.setdefault(function, text) != text:
            raise AgentError(f"{one.record.named}: two cold starts do not answer alike")
        digest = client.checksum(one.record.address)
        suspend, phases = _clock(), Phases()
        self.pods.suspend(pod, phases)
        steps.append(suspend("suspend", phases))
        resume, phases = _clock(), Phases()
        self.pods.resume(pod, (), phases)
        self._require_answer(self.pods.get(pod), function)
        steps.append(resume("resume", phases))
        return steps, pod, digest

    def dump(self, pod: PodId, tier: TierName) -> tuple[Manifest, Step]:
        """Write a pod to a tier; it has ended after."""
        dump, phases = _clock(), Phases()
        manifest = self._freezing.snapshot(pod, phases, leave=True, to=tier)
        return manifest, dump("dump", phases)

    def restored(
        self, name: StepName, function: FunctionId, manifest: Manifest, digest: str = ""
    ) -> list[Step]:
        """Restore a pod, have it answer, hash its memory where told, and stop it."""
        pod = PodId(next(self._ids))
        restore, phases = _clock(), Phases()
        lazy = name == "restore_lazy"
        one = self._freezing.restore(pod, function, (), phases, snapshot=manifest.id, lazy=lazy)
        self._require_answer(one, function)
        steps = [restore(name, phases)]
        if digest:
            self._require_memory(one, digest)
        stop, phases = _clock(), Phases()
        with phases.step("stop"):
            self.pods.stop(pod)
        if digest:
            # One for each round, of a pod whose memory is all there.
            steps.append(stop("stop", phases))
        return steps

    def _require_answer(self, one: Pod, function: FunctionId) -> None:
        text = client.answer(one.record.address)
        if text != self._texts[function]:
            raise AgentError(
                f"{one.record.named}: a pod answers {text!r}; before, it was"
                f" {self._texts[function]!r}"
            )

    def _require_memory(self, one: Pod, digest: str) -> None:
        if client.checksum(one.record.address) != digest:
            raise AgentError(f"{one.record.named}: a restored pod's memory is not what was dumped")

    def function(self, subject: Subject) -> FunctionId:
        """Return which function a worker of the plan is."""
        return FunctionId(self.plan.subjects().index(subject))

    def _tier(self, name: TierName) -> FolderTier:
        tier = self.node.store.tier(name)
        if not isinstance(tier, FolderTier):
            raise AgentError(f"tier {name} is no folder; expected one to measure")
        return tier


def _clock() -> Callable[[StepName, Phases], Step]:
    """Start a clock; what is returned stops it, and makes a step of it."""
    began = time.perf_counter()

    def stop(name: StepName, phases: Phases) -> Step:
        return Step(name=name, seconds=time.perf_counter() - began, phases=phases.as_tuple())

    return stop
