"""A node's GPUs as containers get them: by UUID, by NVML's index, a MIG device as `parent:place`.

A pod has the nodes of its own GPUs in `/dev`, and no others. Its cgroup lets it open those of
every whole GPU of the node: it may be resumed on another, which then appears in its `/dev`. It
cannot make a node itself, for it has no capability.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from inferx.exec.agent.containers.cdi.document import Device, read_devices
from inferx.exec.agent.containers.cdi.edits import merged
from inferx.exec.agent.containers.oci import NO_EDITS, DeviceNode, OciEdits
from inferx.exec.agent.ports import AgentError, Capability, Gpu, GpuInventory, PodSpec

__all__ = ["KIND", "CdiGpus"]

KIND = "nvidia.com/gpu"
PHASE = "devices"
HOW = "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml"


class CdiGpus:
    """Tells what a pod's slices need in its container.

    Args:
        folders: Where the files are; later ones win.
        inventory: The GPUs.
    """

    def __init__(self, folders: Sequence[Path], inventory: GpuInventory) -> None:
        self._folders = folders
        self._inventory = inventory

    def probe(self) -> Capability:
        """Look every GPU up, and all that its file says it needs."""
        name = "devices/cdi"
        facts = {"folders": ", ".join(map(str, self._folders))}
        try:
            gpus = [gpu for gpu in self._inventory.gpus() if not gpu.mig_enabled]
            if not gpus:
                return Capability(name=name, available=False, reason="no GPU", facts=facts)
            devices = self._devices()
            found = [self._device(gpu, devices) for gpu in gpus]
            for device in found:
                merged((device.common, device.own))
        except AgentError as error:
            return Capability(name=name, available=False, reason=str(error), facts=facts)
        facts["files"] = ", ".join(sorted({str(device.file) for device in found}))
        return Capability(name=name, available=True, facts=facts)

    def edits(self, spec: PodSpec) -> OciEdits:
        """Return what a pod's GPUs add to its container.

        A pod of a GPU function that holds none now, for it is suspended, has all but their devices.

        Raises:
            AgentError: A GPU is described nowhere, or what it needs is not there.
        """
        if not spec.gpus:
            return NO_EDITS
        gpus = self._inventory.gpus()
        devices = self._devices()
        wanted = [shape.gpu for shape in spec.slices]
        by_uuid = {gpu.uuid: gpu for gpu in gpus}
        if missing := [uuid for uuid in wanted if uuid not in by_uuid]:
            raise AgentError(f"pod {spec.pod}: no GPU {missing[0]} on this node", phase=PHASE)
        own = [self._device(by_uuid[uuid], devices) for uuid in wanted]
        whole = _whole(gpus, devices)
        if not own and not whole:
            raise AgentError(f"pod {spec.pod}: {self._lack('any GPU of this node')}", phase=PHASE)
        common = {one.file: one.common for one in own or whole}.values()
        edits = merged([*common, *(one.own for one in own)])
        held = frozenset(node.path for node in edits.devices)
        more = {node.path: node for device in whole for node in _nodes(device)}
        return replace(edits, withheld=tuple(more[path] for path in more if path not in held))

    def _devices(self) -> Mapping[str, Device]:
        # Read each time: the file is written anew where a driver or the GPUs' division changes.
        return read_devices(self._folders, KIND)

    def _device(self, gpu: Gpu, devices: Mapping[str, Device]) -> Device:
        found = _found(gpu, devices)
        if found is None:
            raise AgentError(f"GPU {gpu.uuid}: {self._lack(' or '.join(_names(gpu)))}", phase=PHASE)
        return found

    def _lack(self, names: str) -> str:
        where = " or ".join(map(str, self._folders))
        return f"no CDI file in {where} names {names} of {KIND}; write one with {HOW}"


def _whole(gpus: Sequence[Gpu], devices: Mapping[str, Device]) -> list[Device]:
    """Return the whole GPUs of a node that are described: where a pod may be moved to."""
    whole = (_found(gpu, devices) for gpu in gpus if not gpu.parent and not gpu.mig_enabled)
    return [device for device in whole if device is not None]


def _nodes(device: Device) -> Sequence[DeviceNode]:
    """Return a GPU's nodes; none where they are gone, which is not to hold up pods of others."""
    try:
        return merged([device.own]).devices
    except AgentError:
        return ()


def _found(gpu: Gpu, devices: Mapping[str, Device]) -> Device | None:
    return next((devices[name] for name in _names(gpu) if name in devices), None)


def _names(gpu: Gpu) -> tuple[str, ...]:
    """Return what a GPU may be called, the surest first: an index changes when one is added."""
    if gpu.parent:
        where = f"{gpu.nvml_index}:{gpu.place}"
        return gpu.uuid, where, f"mig{where}"
    return gpu.uuid, str(gpu.nvml_index), f"gpu{gpu.nvml_index}"
