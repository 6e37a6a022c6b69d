"""A run that never happened, with the shape of one that could: a crude model, in arrival order.

Loaded by path, since tests are not a package: `runpy.run_path(...)["make_record"]`.
"""

from dataclasses import dataclass, field

import numpy as np

from inferx.core.rng import stream
from inferx.core.types import FunctionSpec, Links, NodeSpec
from inferx.core.units import GIB, NS_PER_MS, NS_PER_S
from inferx.sim.disks import Disks
from inferx.sim.record import Cause, DecisionRow, Outcome, RequestColumns, RunRecord, SpanRow
from inferx.sim.spans import SpanLog

LINKS = Links(
    pcie_gpu=25 * GIB,
    pcie_root=50 * GIB,
    dram=100 * GIB,
    nvme_read=6 * GIB,
    nvme_write=3 * GIB,
    ebs=GIB,
    network=3 * GIB,
)
START_S = {
    Cause.RESUME: 1.2,
    Cause.RESTORE_NVME: 5.5,
    Cause.RESTORE_REMOTE: 14.0,
    Cause.COLD: 38.0,
}
WORD = {
    Cause.RESUME: "resume",
    Cause.RESTORE_NVME: "restore-nvme",
    Cause.RESTORE_REMOTE: "restore-remote",
    Cause.COLD: "cold",
}
STARTING = {
    Cause.RESUME: "resuming",
    Cause.RESTORE_NVME: "restoring",
    Cause.RESTORE_REMOTE: "restoring",
    Cause.COLD: "creating",
}
SUSPEND_NS = 900 * NS_PER_MS


@dataclass
class Pod:
    pod: int
    function: int
    place: int
    from_ns: int
    ready_ns: int
    cause: Cause
    work: list = field(default_factory=list)
    slots: list = field(default_factory=list)
    last_ns: int = 0


def nodes_of(gpus, per_node=8):
    return tuple(
        NodeSpec(
            name=f"node-{i}",
            group="g",
            zone="z",
            instance_type="p4d.24xlarge",
            gpu_type="A100",
            platform="A100/550",
            gpus=min(per_node, gpus - i * per_node),
            hbm_bytes=80 * GIB,
            host_bytes=1_152 * GIB,
            nvme_bytes=8_000 * GIB,
            links=LINKS,
            usd_per_hour=32.77,
        )
        for i in range(-(-gpus // per_node))
    )


def functions_of(count):
    return tuple(
        FunctionSpec(
            name=f"model-{i:02d}",
            milli_gpu=500 if i % 4 == 3 else 1000,
            hbm_bytes=(30 if i % 4 == 3 else 70) * GIB,
            device_bytes=15 * GIB,
            host_bytes=4 * GIB,
            weight_bytes=14 * GIB,
        )
        for i in range(count)
    )


class Crude:
    def __init__(self, gpus, functions, hold_s, standby, tiers):
        # Every fourth GPU is cut in two.
        self.places = [(g, h) for g in range(gpus) for h in range(2 if g % 4 == 1 else 1)]
        self.small = [self.places.count((g, 1)) > 0 for g, _ in self.places]
        self.gpus, self.functions, self.tiers = gpus, functions, tiers
        self.hold_ns, self.standby = int(hold_s * NS_PER_S), standby
        self.free_at = [0] * len(self.places)
        self.live, self.asleep, self.seen = {}, {}, set()
        self.spans, self.decisions, self.pods = [], [], 0
        self.busy = np.zeros(gpus, np.int64)
        self.held = np.zeros(gpus)
        self.bytes = np.zeros(gpus)
        self.evictions = 0

    def span(self, pod, a, b, state, gpu):
        if b <= a:
            return
        spec = self.functions[pod.function]
        off = gpu < 0
        self.spans.append(
            SpanRow(
                a,
                b,
                0 if off else gpu // 8,
                gpu,
                pod.pod,
                pod.function,
                state,
                0 if off else spec.milli_gpu,
                0 if off else spec.hbm_bytes,
                spec.host_bytes + (spec.device_bytes if off else 0),
            )
        )
        if not off:
            self.held[gpu] += (b - a) * spec.milli_gpu
            self.bytes[gpu] += float(b - a) * spec.hbm_bytes

    def leave(self, pod, at, kind):
        gpu = self.places[pod.place][0]
        self.span(pod, pod.from_ns, pod.ready_ns, STARTING[pod.cause], gpu)
        now = pod.ready_ns
        for a, b in sorted(pod.work):
            if a > now:
                self.span(pod, now, a, "idle", gpu)
            if b > max(now, a):
                self.span(pod, max(now, a), b, "working", gpu)
                self.busy[gpu] += (b - max(now, a)) // (2 if self.small[pod.place] else 1)
            now = max(now, b)
        self.span(pod, now, at, "idle", gpu)
        self.span(pod, at, at + SUSPEND_NS, "suspending", gpu)
        self.free_at[pod.place] = at + SUSPEND_NS
        del self.live[pod.function]
        node = gpu // 8
        self.decisions.append(
            DecisionRow(at, kind, pod.function, pod.pod, node, (gpu,), "", "idle", "")
        )
        if self.standby:
            self.asleep[pod.function] = (pod, at + SUSPEND_NS)
            while len(self.asleep) > self.standby:
                self.wake(next(iter(self.asleep)), at + SUSPEND_NS)

    def wake(self, function, at):
        pod, since = self.asleep.pop(function)
        self.span(pod, since, at, "standby", -1)

    def cause(self, function):
        if function in self.asleep:
            return Cause.RESUME
        if not self.tiers:
            return Cause.COLD
        return Cause.RESTORE_NVME if function in self.seen else Cause.RESTORE_REMOTE

    def start(self, function, t, noise):
        for pod in sorted(self.live.values(), key=lambda pod: pod.last_ns):
            if pod.last_ns + self.hold_ns <= t:
                self.leave(pod, pod.last_ns + self.hold_ns, "retain")
        small = self.functions[function].milli_gpu < 1000
        mine = [i for i in range(len(self.places)) if self.small[i] == small]
        taken = {pod.place: pod for pod in self.live.values()}
        empty = [i for i in mine if i not in taken]
        if empty:
            place = min(empty, key=lambda i: (max(self.free_at[i], t), i))
        else:
            victim = min((taken[i] for i in mine), key=lambda pod: (pod.last_ns, pod.pod))
            if victim.last_ns > t + 45 * NS_PER_S:
                return None
            place = victim.place
            self.evictions += 1
            self.leave(victim, max(t, victim.last_ns), "evict")
        at = max(t, self.free_at[place])
        cause = self.cause(function)
        if function in self.asleep:
            self.wake(function, max(at, self.asleep[function][1]))
        ready = at + int(START_S[cause] * noise * NS_PER_S)
        pod = Pod(self.pods, function, place, at, ready, cause, last_ns=ready)
        self.pods += 1
        self.live[function] = pod
        self.seen.add(function)
        gpu = self.places[place][0]
        self.decisions.append(
            DecisionRow(at, "place", function, pod.pod, gpu // 8, (gpu,), WORD[cause], "fits", "{}")
        )
        return pod


def make_record(
    policy="default",
    seed=1,
    *,
    requests=400,
    gpus=8,
    functions=12,
    hours=0.25,
    hold_s=20.0,
    standby=4,
    tiers=True,
):
    specs = functions_of(functions)
    crude = Crude(gpus, specs, hold_s, standby, tiers)
    trace, service = stream(seed, "arrivals"), stream(seed, "service")
    weight = 1.0 / np.arange(1, functions + 1) ** 0.9
    who = trace.choice(functions, requests, p=weight / weight.sum()).astype(np.int32)
    day = trace.uniform(0, 1, requests)
    wave = day + 0.045 * np.sin(4 * np.pi * day)
    arrived = np.sort(((wave - wave.min()) * hours * 3600 * NS_PER_S).astype(np.int64))
    arrived -= arrived[0]
    tokens_in = service.lognormal(6, 1, requests).astype(np.int32)
    tokens_out = np.where(who % 5 == 4, 0, service.lognormal(4.6, 0.8, requests)).astype(np.int32)
    noise = service.lognormal(0, 0.25, requests)
    started, first, finished, pods = (np.full(requests, -1, np.int64) for _ in range(4))
    outcome = np.full(requests, Outcome.REFUSED, np.int8)
    cause = np.zeros(requests, np.int8)
    for i in range(requests):
        f, t = int(who[i]), int(arrived[i])
        pod = crude.live.get(f)
        if pod is not None and pod.last_ns + crude.hold_ns <= t:
            crude.leave(pod, pod.last_ns + crude.hold_ns, "retain")
            pod = None
        fresh = pod is None
        if pod is None:
            pod = crude.start(f, t, float(noise[i]))
        if pod is None:
            continue
        pod.slots = sorted(x for x in pod.slots if x > t)
        start = max(t, pod.ready_ns, pod.slots[-4] if len(pod.slots) >= 4 else 0)
        first_at = start + int((0.08 + tokens_in[i] / 9000) * noise[i] * NS_PER_S)
        end = first_at + int(tokens_out[i] * 0.022 * noise[i] * NS_PER_S)
        if not tokens_out[i]:
            end, first_at = first_at, start
        pod.slots.append(end)
        pod.work.append((start, end))
        pod.last_ns = max(pod.last_ns, end)
        started[i], first[i], finished[i], pods[i] = start, first_at, end, pod.pod
        waited = fresh or start == pod.ready_ns
        cause[i] = pod.cause if waited and start > t else Cause.WARM
        outcome[i] = Outcome.FINISHED
    span = int(arrived[-1]) + 5 * NS_PER_S
    late = finished > span
    outcome[late] = Outcome.UNFINISHED
    finished[late] = -1
    first[late & (first > span)] = -1
    for array in (started, cause, pods):
        array[late & (first < 0)] = 0 if array is cause else -1
    outcome[5::97] = np.where(outcome[5::97] == 1, Outcome.ABORTED, outcome[5::97])
    for pod in sorted(crude.live.values(), key=lambda pod: pod.pod):
        crude.leave(pod, max(pod.last_ns, span), "stop")
    for f in list(crude.asleep):
        crude.wake(f, max(span, crude.asleep[f][1]))
    spans = [
        SpanRow(s.from_ns, min(s.to_ns, span), *(getattr(s, n) for n in SpanRow.__slots__[2:]))
        for s in crude.spans
        if s.from_ns < span
    ]
    if tiers:
        log = SpanLog()
        disks = Disks(specs, log)
        placed = {}
        for d in crude.decisions:
            if d.kind == "place":
                placed.setdefault(d.function, d.at_ns)
        for f, at in sorted(placed.items(), key=lambda item: item[::-1]):
            if at < span:
                disks.wrote(at, 0, f)
        disks.finish(span)
        spans += log
    spans.sort(key=lambda s: (s.from_ns, s.gpu, s.pod))
    crude.decisions.sort(key=lambda d: (d.at_ns, d.pod, d.kind))
    return RunRecord(
        policy=policy,
        seed=seed,
        span_ns=span,
        nodes=nodes_of(gpus),
        functions=specs,
        requests=RequestColumns(
            function=who,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            arrived_ns=arrived,
            started_ns=started,
            first_ns=first,
            finished_ns=finished,
            outcome=outcome,
            cause=cause,
            pod=pods,
        ),
        decisions=crude.decisions,
        spans=spans,
        gpu_busy_ns=np.minimum(crude.busy, span),
        gpu_allocated_milli_ns=np.minimum(crude.held, 1000.0 * span),
        gpu_resident_byte_ns=np.minimum(crude.bytes, 80.0 * GIB * span),
        link_bytes={"pcie": 3 << 40, "nvme": 1 << 40, "network": 1 << 36},
        counters={"evictions": crude.evictions, "policy_errors": 0},
    )
