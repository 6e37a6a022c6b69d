"""Links and what flows over them: the part of a start-up that others can slow.

Laws:
1. Rates are max-min fair: every flow gets an equal part of its narrowest link, and what a flow
   cannot use, for its cap or for a narrower link elsewhere, the others share. They are computed
   anew for all flows that share links, directly or through others, whenever one joins or leaves.
   A link that could carry all its flows at their best is slack: it ties nobody to anybody.
2. Arithmetic is whole: bytes per second, and work left in byte-nanoseconds per second. What a link
   has moved is the sum of what its flows have moved, to the byte, at every instant.
3. A flow ends at the first nanosecond at which its last byte has arrived; it leaves its links
   before its `done` is called. An aborted flow leaves at once and calls nothing.

Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2 (progressive filling).
Cost: O(flows and links that hang together) a change; the least share is found by a scan.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from inferx.core.errors import DescriptionError
from inferx.core.types import NodeSpec, Tier
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.clock import SimClock

__all__ = ["LINK_KINDS", "PATHS", "Abortable", "Flow", "Link", "NodeDevices"]

UNCAPPED = FOREVER_NS

LINK_KINDS = ("pcie", "dram", "nvme", "ebs", "network")
"""What `NodeDevices.moved_bytes` counts by. A GPU's bytes count once, on its own link."""

PATHS = ("tier", "pcie", "dram", "disk_read", "disk_write", "network", "remote")
"""Names of paths inside a node: see `NodeDevices.path`."""


class Abortable(Protocol):
    """Something under way on a node."""

    def abort(self) -> None:
        """End it at once, without a callback; nothing, if it has ended."""
        ...


class Link:
    """One bandwidth, shared by the flows on it."""

    __slots__ = ("_moved_bytes", "asked_bytes_per_s", "bytes_per_s", "flows", "name")

    def __init__(self, name: str, bytes_per_s: int) -> None:
        if bytes_per_s <= 0:
            raise DescriptionError(f"link {name}: {bytes_per_s} bytes/s, expected more than 0")
        self.name = name
        self.bytes_per_s = bytes_per_s
        self.flows: dict[Flow, None] = {}
        self.asked_bytes_per_s = 0
        """What its flows could use at best, together."""
        self._moved_bytes = 0

    @property
    def slack(self) -> bool:
        """Whether it bounds nobody."""
        return self.asked_bytes_per_s <= self.bytes_per_s

    @property
    def moved_bytes(self) -> int:
        """How many bytes it has moved until now."""
        for flow in self.flows:
            flow.settle()
        return self._moved_bytes

    def credit(self, moved_bytes: int) -> None:
        """Count bytes that a flow has moved."""
        self._moved_bytes += moved_bytes


class Flow:
    """`size_bytes` on their way over every link of `path` at once; begins when it is made.

    `cap_bytes_per_s` is what the ends can do at best. A path may be empty, then it rules alone.
    """

    __slots__ = (
        "_armed_ns",
        "_at_ns",
        "_clock",
        "_done",
        "_left",
        "best_bytes_per_s",
        "bytes_per_s",
        "cap_bytes_per_s",
        "moved_bytes",
        "path",
        "size_bytes",
    )

    def __init__(
        self,
        clock: SimClock,
        path: Sequence[Link],
        *,
        size_bytes: int,
        cap_bytes_per_s: int = UNCAPPED,
        done: Callable[["Flow"], object],
    ) -> None:
        assert size_bytes >= 0
        assert cap_bytes_per_s > 0
        assert path or cap_bytes_per_s < UNCAPPED or not size_bytes, "nothing bounds the flow"
        assert len(set(path)) == len(path), "a flow crosses a link once"
        self._clock = clock
        self._done = done
        self._left = size_bytes * NS_PER_S
        self._at_ns = clock.now_ns()
        self._armed_ns = FOREVER_NS
        self.bytes_per_s = 0
        self.cap_bytes_per_s = cap_bytes_per_s
        self.moved_bytes = 0
        self.path = tuple(path)
        self.size_bytes = size_bytes
        self.best_bytes_per_s = min((link.bytes_per_s for link in path), default=cap_bytes_per_s)
        self.best_bytes_per_s = min(self.best_bytes_per_s, cap_bytes_per_s)
        for link in path:
            link.flows[self] = None
            link.asked_bytes_per_s += self.best_bytes_per_s
        _share([self], [link for link in path if not link.slack])

    def abort(self) -> None:
        """Stop where it is and give its share back; nothing, if it has ended."""
        if self._armed_ns != FOREVER_NS:
            self.settle()
            self._leave()

    def settle(self) -> None:
        """Account for what has moved until now."""
        now_ns = self._clock.now_ns()
        self._left = left = max(0, self._left - self.bytes_per_s * (now_ns - self._at_ns))
        self._at_ns = now_ns
        moved_bytes = self.size_bytes + (-left // NS_PER_S)
        fresh_bytes = moved_bytes - self.moved_bytes
        if fresh_bytes:
            self.moved_bytes = moved_bytes
            for link in self.path:
                link.credit(fresh_bytes)

    def change_rate(self, bytes_per_s: int) -> None:
        """Go on at another rate; what it is, `_share` decides."""
        self.settle()
        self.bytes_per_s = bytes_per_s
        delay_ns = -(-self._left // bytes_per_s)
        due_ns = self._at_ns + delay_ns
        if due_ns < self._armed_ns:
            self._armed_ns = due_ns
            self._clock.after(delay_ns, self._fire)

    def _fire(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns != self._armed_ns:
            return
        self.settle()
        if self._left:
            delay_ns = -(-self._left // self.bytes_per_s)
            self._armed_ns = now_ns + delay_ns
            self._clock.after(delay_ns, self._fire)
            return
        self._leave()
        self._done(self)

    def _leave(self) -> None:
        self._armed_ns = FOREVER_NS
        bound = [link for link in self.path if not link.slack]
        for link in self.path:
            del link.flows[self]
            link.asked_bytes_per_s -= self.best_bytes_per_s
        _share([], bound)


def _share(newcomers: Sequence[Flow], bound: Sequence[Link]) -> None:
    """Give every flow that hangs together with the changed links its max-min fair rate.

    Slack links are left out: at its best, no flow on them is slowed.
    """
    reached = list(bound)
    free = {link: link.bytes_per_s for link in reached}
    flows: dict[Flow, None] = dict.fromkeys(newcomers)
    for link in reached:  # Grows while it is walked.
        for flow in link.flows:
            if flow not in flows or flow in newcomers:
                flows[flow] = None
                for other in flow.path:
                    if other not in free and not other.slack:
                        free[other] = other.bytes_per_s
                        reached.append(other)
    unmet = {link: len(link.flows) for link in reached if link.flows}
    while flows:
        share, narrowest = UNCAPPED, None
        for link, count in unmet.items():
            part = free[link] // count
            if part < share:
                share, narrowest = part, link
        fixed = [flow for flow in flows if flow.best_bytes_per_s <= share]
        if not fixed:
            assert narrowest is not None
            fixed = [flow for flow in narrowest.flows if flow in flows]
        for flow in fixed:
            rate = max(1, min(flow.best_bytes_per_s, share))
            del flows[flow]
            for link in flow.path:
                if link not in free:
                    continue
                free[link] -= rate
                unmet[link] -= 1
                if not unmet[link]:
                    del unmet[link]
            if rate != flow.bytes_per_s:
                flow.change_rate(rate)


class NodeDevices:
    """One node's links, and what is under way on them.

    A node without its own disk reads and writes its EBS volume instead. A node without a PCIe root
    has GPUs that share nothing on the way to the host.
    """

    __slots__ = ("_links", "_object_store", "clock", "node", "running")

    def __init__(self, clock: SimClock, node: NodeSpec, object_store: Link | None) -> None:
        self.clock = clock
        self.node = node
        self.running: dict[Abortable, None] = {}
        self._object_store = object_store
        rates = {
            "dram": node.links.dram,
            "nvme_read": node.links.nvme_read,
            "nvme_write": node.links.nvme_write,
            "ebs": node.links.ebs,
            "network": node.links.network,
            "pcie_root": node.links.pcie_root,
        }
        rates |= {f"pcie_{gpu}": node.links.pcie_gpu for gpu in range(node.gpus)}
        self._links = {
            kind: Link(f"{node.name}/{kind}", rate) for kind, rate in rates.items() if rate
        }

    def link(self, kind: str) -> Link:
        """Return one of the node's links.

        Raises:
            DescriptionError: The node has none of that kind.
        """
        link = self._links.get(kind)
        if link is None:
            raise DescriptionError(
                f"node {self.node.name}: no {kind} link, expected a rate above 0"
            )
        return link

    def path(self, name: str, *, source: Tier = Tier.ABSENT, gpu: int = 0) -> tuple[Link, ...]:
        """Return the links of a path: one of `PATHS`.

        `remote` is network and object store; `tier` is where `source` lies: the disk, `remote` or
        DRAM. `gpu` counts the node's GPUs from 0 and matters for `pcie` alone.

        Raises:
            DescriptionError: A link on it is absent.
        """
        match name:
            case "pcie" if "pcie_root" in self._links:
                return (self.link(f"pcie_{gpu}"), self._links["pcie_root"])
            case "pcie":
                return (self.link(f"pcie_{gpu}"),)
            case "disk_read" | "disk_write":
                own = name.replace("disk", "nvme")
                return (
                    self.link("ebs" if "ebs" in self._links and own not in self._links else own),
                )
            case "remote":
                if self._object_store is None:
                    raise DescriptionError(f"node {self.node.name}: no object store, expected one")
                return (self.link("network"), self._object_store)
            case "tier":
                tiers = {Tier.NVME: "disk_read", Tier.REMOTE: "remote", Tier.DRAM: "dram"}
                assert source in tiers, f"nothing is read from {source!r}"
                return self.path(tiers[source])
            case _:
                assert name in PATHS, name
                return (self.link(name),)

    def moved_bytes(self) -> dict[str, int]:
        """Return the bytes moved until now, by `LINK_KINDS`."""
        moved: dict[str, int] = dict.fromkeys(LINK_KINDS, 0)
        for kind, link in self._links.items():
            if kind != "pcie_root":
                moved[kind.partition("_")[0]] += link.moved_bytes
        return moved

    def abort_all(self) -> None:
        """The node is lost: end all that is under way on it, without a callback."""
        for work in list(self.running):
            work.abort()
        for link in self._links.values():
            for flow in list(link.flows):
                flow.abort()
