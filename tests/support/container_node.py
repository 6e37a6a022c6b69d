"""A node whose pods are containers with stand-in GPUs, given to them by a CDI file.

The file is written as `nvidia-ctk cdi generate` writes it. The libraries are mounted by their full
version alone: what a program loads, `libcuda.so.1`, comes of what the agent makes of the hooks.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import system_parts as parts
import yaml
from agent_node import AgentNode, agent_node, function
from images import write_image
from msgspec.structs import replace
from standin_gpus import TENANT, libraries, uuid
from standin_gpus import Node as Gpus

from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.ports import Mount

__all__ = ["IMAGE", "container_node", "import_image", "tenant", "write_cdi"]

IMAGE = "registry.test/group/tenant:1"
LIBRARIES = "/gpu/lib"
GPUS = "/gpu/node"
DRIVER = "580.159.04"


def write_cdi(folder: Path, gpus: Gpus, *, count: int, by: str = "uuid") -> Path:
    """Write a CDI file for a node's stand-ins, and return its folder.

    Args:
        folder: Made anew.
        gpus: The node.
        count: How many GPUs it has.
        by: What devices are called: `uuid` or `index`.
    """
    driver, cdi = folder / "driver", folder / "cdi"
    driver.mkdir(parents=True)
    cdi.mkdir()
    library = f"libcuda.so.{DRIVER}"
    shutil.copy(libraries() / "libcuda.so.1", driver / library)
    (driver / "libcuda.so.1").symlink_to(library)
    hook = ["nvidia-ctk", "hook", "update-ldcache", "--folder", LIBRARIES]
    options = ["nosuid", "nodev", "rbind", "rprivate"]
    common = {
        "env": [f"STANDIN_GPUS={GPUS}", "STANDIN_DEV=/dev", "NVIDIA_VISIBLE_DEVICES=void"],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk", "args": hook}],
        "mounts": [
            {
                "hostPath": str(driver / library),
                "containerPath": f"{LIBRARIES}/{library}",
                "options": ["ro", *options],
            },
            {
                "hostPath": str(gpus.folder),
                "containerPath": GPUS,
                "options": ["rw", *options],
            },
        ],
    }
    devices = [
        {
            "name": uuid(row) if by == "uuid" else str(row),
            "containerEdits": {
                "deviceNodes": [
                    {"path": f"/dev/nvidia{row}", "hostPath": str(gpus.folder / f"dev/nvidia{row}")}
                ]
            },
        }
        for row in range(count)
    ]
    told = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "containerEdits": common}
    (cdi / "nvidia.yaml").write_text(yaml.safe_dump(told | {"devices": devices}))
    return cdi


def tenant(gpus: Gpus, /, *, image: str = "", number: int = 0, **more: object) -> Deployed:
    """Return a function whose pods, containers, hold GPU memory and answer what is in it."""
    plain = function(gpus, number=number, **more)
    base = sys.base_prefix
    # An image of our own has no Python: that of the host is mounted.
    of_host = {"/usr", "/lib", "/lib64", base if not base.startswith("/usr") else "/usr"}
    launch = replace(
        plain.launch,
        image=image,
        command=(os.path.realpath(sys.executable), "/tenant/tenant.py", *plain.launch.command[2:]),
        env=(),
        mounts=(
            Mount(str(TENANT.parent), "/tenant"),
            *((Mount(path, path) for path in sorted(of_host)) if image else ()),
        ),
    )
    return replace(plain, launch=launch)


def import_image(node: AgentNode, archive: Path, *, content: bytes = b"1") -> None:
    """Have containerd know the tenant's image; its content decides of its digest."""
    write_image(archive, IMAGE, {"etc/": b"", "tmp/": b"", "etc/release": content})
    parts.ctr(node.config.containerd, node.config.name, "image", "import", str(archive))


@contextmanager
def container_node(
    folder: Path, gpus: Gpus, kind: str, /, *functions: Deployed, socket: str = "", **config: object
) -> Iterator[AgentNode]:
    """Make a node whose pods are containers; nothing of it is left after."""
    if socket:
        config["containerd"] = socket
    mounted = (mount.source for one in functions for mount in one.launch.mounts)
    config.setdefault("mounts", tuple(map(Path, dict.fromkeys(mounted))))
    with agent_node(folder, gpus, *functions, sandbox=kind, **config) as node:
        yield node
    # A runtime makes its cgroups' parents in every hierarchy, and a folder of its own.
    parts.remove_cgroup(node.config.name)
    parts.remove_runtime_state(node.config.name)
    # A process that adopts orphans, as this one may do, has those of a containerd that it started.
    for pid in parts.children(os.getpid()):
        if Path(f"/proc/{pid}/comm").read_text() == "containerd-shim\n":
            os.waitpid(pid, 0)
