"""A node's configuration: `node.toml`. Everything has a default, and no file at all is fine."""

import ipaddress
import re
from pathlib import Path

import msgspec

from inferx.core.errors import DescriptionError
from inferx.core.units import MIB
from inferx.exec.agent.gpus.memory_guard import Action
from inferx.exec.agent.gpus.share import MPS_PIPES
from inferx.exec.agent.store.config import TierConfig
from inferx.exec.agent.tiers import own_tier, path_of, read_tiers
from inferx.spec.document import read_document, shown
from inferx.spec.sizes import parse_bytes
from inferx.spec.table import Table, top_table

__all__ = ["LAZY_FROM_BYTES", "AgentConfig", "read_config"]

_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_SUBNET = "10.201.0.0/16"
_ACTIONS: dict[str, Action] = {"warn": "warn", "throttle": "throttle", "kill": "kill"}
LAZY_FROM_BYTES = 512 * MIB
"""Where lazy pages begin to pay: docs/results/restore.md."""
_STATE = Path("/var/lib/inferx")
_TRANSIENT = Path("/run/inferx")
_CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))

LOG_BYTES_LEAST = 64 * 1024
"""Room for a few blocks: what is given up is half of a bound."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the agent works on this node.

    Attributes:
        name: Of the agent; its cgroups, bridge and namespaces are called by it.
        state: Folder of what it must find again after a restart.
        socket: Where it takes commands; only its own user can open it.
        transient: Folder of what a reboot ends, for agents of all names.
        sandbox: `containerd`, `runc`, `process`, or `auto`: containerd if it answers, else process.
        containerd: Its socket.
        pull: Whether containerd pulls an image that is missing.
        registry_secrets: File of what registries want to know for that, as Docker's config.json.
        mounts: Folders of the host that functions may mount, with all below; none unless named.
        network: `bridge`, `host` or `auto`.
        subnet: Addresses of pods, on the bridge.
        criu: Path of CRIU; empty looks for INFERX_CRIU, then in PATH.
        checkpoints: Whether GPU state is checkpointed where the driver can.
        cdi: Folders of Container Device Interface files: how containers get GPUs. Later ones win.
        gpus: Sizes of GPUs that are declared, in bytes; empty asks NVML.
        hook: Library of the share `hook`; None is none.
        mps_pipes: Folder of the MPS daemon's pipes.
        tiers: Where snapshots lie.
        lazy_from_bytes: Size of a snapshot, GPU state aside, from which its pages come lazily; 0 is
            never.
        over_memory: What is done about a pod that exceeds its GPU memory: warn, throttle, kill.
        log_bytes: What is kept of a pod's standard output, and as much of its standard error.
        kept_log_bytes: Of all pods that have ended together; 0 keeps none.
    """

    name: str = "inferx"
    state: Path = _STATE
    socket: Path = _STATE / "agent.sock"
    transient: Path = _TRANSIENT
    sandbox: str = "auto"
    containerd: str = "/run/containerd/containerd.sock"
    pull: bool = True
    registry_secrets: Path | None = None
    mounts: tuple[Path, ...] = ()
    network: str = "auto"
    subnet: ipaddress.IPv4Network = ipaddress.IPv4Network(_SUBNET)
    criu: str = ""
    checkpoints: bool = True
    cdi: tuple[Path, ...] = _CDI
    gpus: tuple[int, ...] = ()
    hook: Path | None = None
    mps_pipes: Path = MPS_PIPES
    tiers: tuple[TierConfig, ...] = own_tier(_STATE)
    lazy_from_bytes: int = LAZY_FROM_BYTES
    over_memory: Action = "warn"
    log_bytes: int = 16 * MIB
    kept_log_bytes: int = 256 * MIB

    @property
    def runc(self) -> Path:
        """Folder of what runc knows of this agent's pods: nobody else's, and gone with a reboot."""
        return self.transient / self.name / "runc"


def read_config(path: Path) -> AgentConfig:
    """Read a node's configuration.

    Raises:
        DescriptionError: It is not what it should be: file, line, key, found, expected.
    """
    top = top_table(read_document(path))
    agent, network = top.table("agent"), top.table("network")
    gpu, store, sandbox = top.table("gpu"), top.table("store"), top.table("sandbox")
    logs = top.table("logs")
    restore = top.table("restore")
    name = agent.text("name", "inferx")
    if not _NAME.fullmatch(name):
        raise agent.error("name", shown(name), "1 to 8 small letters and digits")
    state = path_of(agent, "state", _STATE)
    config = AgentConfig(
        name=name,
        state=state,
        socket=path_of(agent, "socket", state / "agent.sock"),
        transient=path_of(agent, "transient", _TRANSIENT),
        sandbox=sandbox.text("kind", "auto", ("auto", "containerd", "runc", "process")),
        containerd=sandbox.text("containerd", "/run/containerd/containerd.sock"),
        pull=sandbox.text("pull", "missing", ("missing", "never")) == "missing",
        registry_secrets=path_of(sandbox, "registry_secrets")
        if "registry_secrets" in sandbox
        else None,
        mounts=_folders(sandbox, "mounts", ()),
        network=network.text("kind", "auto", ("auto", "bridge", "host")),
        subnet=_subnet(network),
        criu=agent.text("criu", "-").removeprefix("-"),
        checkpoints=gpu.text("checkpoints", "auto", ("auto", "none")) == "auto",
        cdi=_folders(gpu, "cdi", _CDI),
        gpus=_declared(gpu),
        hook=path_of(gpu, "hook") if "hook" in gpu else None,
        mps_pipes=path_of(gpu, "mps_pipes", MPS_PIPES),
        tiers=read_tiers(store, state),
        lazy_from_bytes=restore.size("lazy_from", LAZY_FROM_BYTES),
        over_memory=_ACTIONS[gpu.text("over_memory", "warn", tuple(_ACTIONS))],
        log_bytes=logs.size("pod", 16 * MIB, minimum=LOG_BYTES_LEAST),
        kept_log_bytes=logs.size("kept", 256 * MIB),
    )
    for table in (agent, sandbox, network, gpu, store, logs, restore, top):
        table.close()
    return config


def _subnet(network: Table) -> ipaddress.IPv4Network:
    text = network.text("subnet", _SUBNET)
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise network.error("subnet", str(error), f"a network such as {_SUBNET}") from error
    if not subnet.is_private or not 16 <= subnet.prefixlen <= 29:
        raise network.error("subnet", shown(text), "a private network of /16 to /29")
    return subnet


def _declared(gpu: Table) -> tuple[int, ...]:
    """Read `declare = "2x80GiB"`."""
    text = gpu.text("declare", "-")
    if text == "-":
        return ()
    count, _, size = text.partition("x")
    if not count.isdecimal() or not 1 <= int(count) <= 16:
        raise gpu.error("declare", shown(text), "count and size, as in 2x80GiB")
    try:
        return (parse_bytes("declare", size),) * int(count)
    except DescriptionError as error:
        raise gpu.error("declare", shown(text), "count and size, as in 2x80GiB") from error


def _folders(table: Table, key: str, default: tuple[Path, ...]) -> tuple[Path, ...]:
    folders = table.texts(key, tuple(map(str, default)))
    for folder in folders:
        if not folder.startswith("/"):
            raise table.error(key, shown(folder), "a list of paths from the root")
    return tuple(map(Path, folders))
