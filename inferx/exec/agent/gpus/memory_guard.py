"""Who holds more of a GPU than its slice, and what is done about it.

Pure: the agent asks NVML and its sandboxes on a timer and acts on the answer. A pod that holds all
of a GPU, or a MIG device, is not asked about here: nobody else can be hurt.

A pod that exceeds is warned of at once. What is harsher waits until it has exceeded for a while
without a break: engines overshoot for moments, as when graphs are captured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from inferx.exec.agent.ports import GpuProcess, SliceShape

__all__ = ["Action", "Excess", "GuardPolicy", "Holding", "Verdict", "decide", "exceeding"]

Action = Literal["warn", "throttle", "kill"]


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """What is done about a pod that exceeds its slice.

    Attributes:
        action: `warn`, `throttle` (freeze it until it is suspended or its share grows) or `kill`.
        slack_bytes: What each process may hold beside the slice: a CUDA context, which NVML counts.
        patience_ns: How long it may exceed before `throttle` or `kill`.
    """

    action: Action
    slack_bytes: int
    patience_ns: int


@dataclass(frozen=True, slots=True)
class Holding:
    """A pod: its slices and its processes, as the host counts."""

    slices: Sequence[SliceShape]
    pids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Excess:
    """A pod on one GPU that holds more than it may. Bytes."""

    pod: str
    gpu: str
    held_bytes: int
    allowed_bytes: int

    @property
    def excess_bytes(self) -> int:
        """By how much."""
        return self.held_bytes - self.allowed_bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done now about one excess."""

    excess: Excess
    action: Action


def exceeding(
    pods: Mapping[str, Holding], processes: Iterable[GpuProcess], *, slack_bytes: int
) -> tuple[Excess, ...]:
    """Return who exceeds on which GPU, by name and GPU.

    A pod may hold nothing of a GPU that it has no slice of. Slack counts for each of its processes
    that holds memory there. Processes of no pod are not ours to judge.
    """
    owner = {pid: pod for pod, holding in pods.items() for pid in holding.pids}
    held: dict[tuple[str, str], int] = {}
    slack: dict[tuple[str, str], int] = {}
    for process in processes:
        pod = owner.get(process.pid)
        if pod is None:
            continue
        key = (pod, process.gpu)
        held[key] = held.get(key, 0) + process.memory_used
        slack[key] = slack.get(key, 0) + slack_bytes
    found: list[Excess] = []
    for (pod, gpu), used in sorted(held.items()):
        share = sum(part.hbm_bytes for part in pods[pod].slices if part.gpu == gpu)
        allowed = share + slack[pod, gpu] if share else 0
        if used > allowed:
            found.append(Excess(pod, gpu, used, allowed))
    return tuple(found)


def decide(
    excesses: Iterable[Excess],
    since_ns: Mapping[tuple[str, str], int],
    now_ns: int,
    policy: GuardPolicy,
) -> tuple[tuple[Verdict, ...], Mapping[tuple[str, str], int]]:
    """Return what to do now, and since when each pod has exceeded on each GPU, for the next time.

    A warning is given once, when an excess begins. `throttle` and `kill` are repeated until the
    excess is gone, for the first may have failed.

    Args:
        excesses: What `exceeding` tells now.
        since_ns: What this returned the last time; empty at first.
        now_ns: Now.
        policy: What is done.
    """
    verdicts: list[Verdict] = []
    since: dict[tuple[str, str], int] = {}
    for excess in excesses:
        key = (excess.pod, excess.gpu)
        begun_ns = since_ns.get(key, now_ns)
        since[key] = begun_ns
        if policy.action != "warn" and now_ns - begun_ns >= policy.patience_ns:
            verdicts.append(Verdict(excess, policy.action))
        elif key not in since_ns:
            verdicts.append(Verdict(excess, "warn"))
    return tuple(verdicts), since
