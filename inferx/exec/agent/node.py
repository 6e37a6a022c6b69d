"""A node's adapters: chosen by what the configuration asks for and what the node turns out to have.

What was found out is kept, with the reasons: `inferx agent probe` prints it.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inferx.exec.agent.cgroup import Cgroups
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.criu import CriuSnapshotter
from inferx.exec.agent.declared import DeclaredGpus
from inferx.exec.agent.device import CudaCheckpointer, NoCheckpointer
from inferx.exec.agent.network import BridgedNetwork, HostNetwork, Network
from inferx.exec.agent.nvml import NvmlInventory
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
from inferx.exec.agent.process import ProcessSandbox
from inferx.exec.agent.share import shares
from inferx.exec.agent.store import SnapshotStore, open_store
from inferx.exec.agent.store.manifest import Platform
from inferx.exec.agent.suspend import SuspendOnly

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
    network: Network
    shares: dict[str, Share]
    store: SnapshotStore
    platform: Platform
    """As a snapshot that is made here has it, but for what its pod adds."""

    def close(self) -> None:
        """End what was started for it."""
        for part in (self.device, self.inventory):
            close = getattr(part, "close", None)
            if close is not None:
                close()


class _Findings:
    """Asks adapters whether they are available, and keeps what they answered."""

    def __init__(self) -> None:
        self.all: list[Capability] = []

    def ask(self, adapter: Probed) -> Capability:
        """Return what an adapter says of itself."""
        capability = adapter.probe()
        self.all.append(capability)
        return capability


def assemble(config: AgentConfig) -> Node:
    """Return the node's adapters, after asking all of them.

    Raises:
        AgentError: What was asked for is not there; or a folder cannot be used.
    """
    findings = _Findings()
    inventory = _inventory(config, findings)
    device = _device(config, findings)
    processes = ProcessSandbox(config.state / "processes", Cgroups(config.name))
    findings.ask(processes)
    snapshotter = _snapshotter(config, processes, findings)
    network = _network(config, findings)
    by_level = dict(shares(inventory))
    for share in by_level.values():
        findings.ask(share)
    facts = {key: value for one in findings.all for key, value in one.facts.items()}
    store = open_store(config.tiers)
    return Node(
        config,
        tuple(findings.all),
        inventory,
        device,
        processes,
        snapshotter,
        network,
        by_level,
        store,
        Platform(
            architecture=platform.machine(),
            cpu=_cpu(),
            kernel=platform.release(),
            driver=inventory.driver,
            criu=facts.get("version", ""),
        ),
    )


def _inventory(config: AgentConfig, findings: _Findings) -> GpuInventory:
    if config.gpus:
        declared = DeclaredGpus(config.gpus)
        findings.ask(declared)
        return declared
    nvml = NvmlInventory()
    return nvml if findings.ask(nvml).available else DeclaredGpus(())


def _device(config: AgentConfig, findings: _Findings) -> DeviceCheckpointer:
    if not config.checkpoints:
        return NoCheckpointer("checkpoints are turned off")
    cuda = CudaCheckpointer()
    told = findings.ask(cuda)
    return cuda if told.available else NoCheckpointer(told.reason)


def _snapshotter(
    config: AgentConfig, processes: ProcessSandbox, findings: _Findings
) -> Snapshotter:
    criu = CriuSnapshotter(processes, path=config.criu)
    told = findings.ask(criu)
    return criu if told.available else SuspendOnly(told.reason)


def _network(config: AgentConfig, findings: _Findings) -> Network:
    bridged, host = BridgedNetwork(config.name, config.subnet), HostNetwork()
    told = findings.ask(bridged)
    findings.ask(host)
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
