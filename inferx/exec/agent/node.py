"""A node's adapters: chosen by what the configuration asks for and what the node turns out to have.

What was found out is kept, with the reasons: `inferx agent probe` prints it.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.containers.cdi.gpus import CdiGpus
from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.containerd.snapshotter import ContainerdSnapshotter
from inferx.exec.agent.containers.oci import EditsFor, no_edits
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.containers.runc_criu import RuncSnapshotter
from inferx.exec.agent.gpus.declared import DeclaredGpus
from inferx.exec.agent.gpus.device import CudaCheckpointer, NoCheckpointer
from inferx.exec.agent.gpus.nvml import NvmlInventory
from inferx.exec.agent.gpus.share import shares
from inferx.exec.agent.network import BridgedNetwork, HostNetwork, Network
from inferx.exec.agent.ports import (
    AgentError,
    Capability,
    DeviceCheckpointer,
    GpuInventory,
    Probed,
    Sandbox,
    Share,
    Snapshotter,
)
from inferx.exec.agent.processes.cgroup import Cgroups
from inferx.exec.agent.processes.criu import CriuSnapshotter
from inferx.exec.agent.processes.criu_probe import find_criu
from inferx.exec.agent.processes.page_server import PageServers
from inferx.exec.agent.processes.process import ProcessSandbox
from inferx.exec.agent.processes.suspend import SuspendOnly
from inferx.exec.agent.sandbox_kind import await_sandbox, kind_of, pods_in
from inferx.exec.agent.store import S3Tier, SnapshotStore, durable, open_store
from inferx.exec.agent.store.manifest import Platform

__all__ = ["Node", "assemble"]


@dataclass(frozen=True, slots=True)
class Node:
    """What the agent works with on this node."""

    config: AgentConfig
    capabilities: Sequence[Capability]
    inventory: GpuInventory
    device: DeviceCheckpointer
    sandbox: Sandbox
    snapshotter: Snapshotter
    lazy_pages: Capability
    network: Network
    shares: dict[str, Share]
    store: SnapshotStore
    platform: Platform
    """As a snapshot that is made here has it, but for what its pod adds."""

    def close(self) -> None:
        """End what was started for it."""
        for part in (self.sandbox, self.device, self.inventory):
            close = getattr(part, "close", None)
            if close is not None:
                close()


class _Findings:
    """Asks adapters whether they are available, and keeps what they answered.

    Args:
        all_asked: Whether those are to be asked, too, that are not taken.
    """

    def __init__(self, *, all_asked: bool) -> None:
        self.all_asked = all_asked
        self.all: list[Capability] = []

    def ask(self, adapter: Probed) -> Capability:
        """Return what an adapter says of itself."""
        capability = adapter.probe()
        self.all.append(capability)
        return capability

    def survey(self, adapter: Probed) -> None:
        """Ask an adapter whose answer decides nothing, where it is to be told of."""
        if self.all_asked:
            self.ask(adapter)

    def facts(self, name: str) -> Mapping[str, str]:
        """Return what the adapter of that name told."""
        found = [one.facts for one in self.all if one.name == name]
        return found[0] if found else dict[str, str]()


def assemble(config: AgentConfig, *, wait_s: float = 0.0, all_asked: bool = True) -> Node:
    """Return the node's adapters, after asking them what they can.

    Args:
        config: The node's.
        wait_s: How long the sandbox that has pods of this state may take to answer.
        all_asked: Whether those are asked, too, that are not taken, for who tells of the node.
            Without, a command that is done in a moment loads no CUDA on a node without GPUs, and
            waits for no daemon that it has no use for.

    Raises:
        AgentError: What was asked for is not there; or a folder cannot be used.
    """
    with durable.told(f"cannot use {config.state} for the agent's state", phase="open"):
        # Others may not look into it, whichever of the agent's parts would have made it first.
        durable.make_folder(config.state)
    findings = _Findings(all_asked=all_asked)
    inventory = _inventory(config, findings)
    device = _device(config, inventory, findings)
    edits = _edits(config, inventory, findings)
    sandbox, snapshotter = _sandbox(config, findings, edits, wait_s=wait_s)
    network = _network(config, findings)
    by_level = dict(shares(inventory, hook=config.hook, mps_pipes=config.mps_pipes))
    for share in by_level.values():
        # Each start asks its own again.
        findings.survey(share)
    facts = findings.facts(f"snapshotter/{snapshotter.name}")
    lazy_pages = findings.ask(PageServers(facts.get("criu") or facts.get("path", "")))
    store = open_store(config.tiers)
    for tier in store.tiers:
        if isinstance(tier, S3Tier):
            # One that does not answer now may do so later: it stays, and tells why not till then.
            findings.ask(tier)
    return Node(
        config,
        tuple(findings.all),
        inventory,
        device,
        sandbox,
        snapshotter,
        lazy_pages,
        network,
        by_level,
        store,
        Platform(
            architecture=platform.machine(),
            cpu=_cpu(),
            kernel=platform.release(),
            driver=inventory.driver,
            criu=facts.get("criu_version", ""),
            runc=facts.get("runc_version", ""),
            containerd=facts.get("containerd_version", ""),
        ),
    )


def _inventory(config: AgentConfig, findings: _Findings) -> GpuInventory:
    if config.gpus:
        declared = DeclaredGpus(config.gpus)
        findings.ask(declared)
        return declared
    nvml = NvmlInventory()
    return nvml if findings.ask(nvml).available else DeclaredGpus(())


def _device(
    config: AgentConfig, inventory: GpuInventory, findings: _Findings
) -> DeviceCheckpointer:
    if not config.checkpoints:
        return NoCheckpointer("checkpoints are turned off")
    if not findings.all_asked and (config.gpus or not inventory.gpus()):
        return NoCheckpointer("this node has no GPU that could have a state")
    cuda = CudaCheckpointer()
    told = findings.ask(cuda)
    return cuda if told.available else NoCheckpointer(told.reason)


def _edits(config: AgentConfig, inventory: GpuInventory, findings: _Findings) -> EditsFor:
    """Return what tells containers' devices; of GPUs that are only declared there are none."""
    cdi = CdiGpus(config.cdi, inventory)
    findings.survey(cdi)
    return no_edits if config.gpus else cdi.edits


def _sandbox(
    config: AgentConfig, findings: _Findings, edits: EditsFor, *, wait_s: float
) -> tuple[Sandbox, Snapshotter]:
    """Return the pair that was asked for.

    `auto` is the one that has pods already, else containerd where it answers, else processes.
    """
    taken = kind_of(config.state, config.sandbox)
    criu = find_criu(config.criu) or config.criu
    containers = ContainerdSandbox(
        Client(config.containerd, config.name),
        owner=config.name,
        cgroup_parent=config.name,
        edits=edits,
        pull=config.pull,
        secrets=config.registry_secrets,
    )
    runc = RuncSandbox(config.runc, criu=criu, cgroup_parent=config.name, edits=edits)
    processes = ProcessSandbox(config.state / "processes", Cgroups(config.name))
    pairs: dict[str, tuple[Sandbox, Snapshotter]] = {
        "containerd": (containers, ContainerdSnapshotter(containers, criu=criu)),
        "runc": (runc, RuncSnapshotter(runc)),
        "process": (processes, CriuSnapshotter(processes, path=criu)),
    }
    if taken != "auto":
        await_sandbox(pairs[taken][0], within_s=wait_s)
    told: dict[str, tuple[Capability, Capability]] = {}

    def ask(name: str) -> tuple[Capability, Capability]:
        if name not in told:
            sandbox, snapshotter = pairs[name]
            told[name] = (findings.ask(sandbox), findings.ask(snapshotter))
        return told[name]

    for name in pairs if findings.all_asked else ():
        ask(name)
    if taken == "auto":
        taken = "containerd" if ask("containerd")[0].available else "process"
    if taken != "containerd":
        containers.close()
    there, writes = ask(taken)
    if not there.available:
        containers.close()
        has = pods_in(config.state)
        more = f"; it has {has} pods of {config.state}, so no other is taken" if has else ""
        raise AgentError(f"sandbox {taken}: {there.reason}{more}", phase="sandbox")
    sandbox, snapshotter = pairs[taken]
    return sandbox, snapshotter if writes.available else SuspendOnly(writes.reason)


def _network(config: AgentConfig, findings: _Findings) -> Network:
    bridged, host = BridgedNetwork(config.name, config.subnet), HostNetwork()
    findings.survey(host)
    if config.network == "host" and not findings.all_asked:
        return host
    told = findings.ask(bridged)
    if config.network == "host" or (config.network == "auto" and not told.available):
        return host
    if not told.available:
        raise AgentError(f"network bridge: {told.reason}", phase="network")
    return bridged


def _cpu() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
    names = [line for line in told.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else ""
