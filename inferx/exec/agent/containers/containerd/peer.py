"""Which programs containerd's shims run: what can be found out from outside.

containerd does not tell. Its shims inherit its environment, so the programs are those that its own
PATH finds, and the kernel says who listens on its socket.
"""

import shutil
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from inferx.exec.agent.containers.container_criu import program_version

__all__ = ["shim_programs"]

PROGRAMS = ("runc", "criu")

ASK_S = 5.0


def shim_programs(path: str) -> Mapping[str, str]:
    """Return paths and versions of runc and CRIU, as far as they are known.

    Args:
        path: containerd's socket.

    Returns:
        `runc`, `runc_version`, `criu`, `criu_version`; a program that is not found is missing, and
        `programs` says why none could be looked for.
    """
    try:
        pid = _listener(path)
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        # In another root (a container's, ours or its) its paths say nothing here.
        if not Path(f"/proc/{pid}/root").samefile("/"):
            return {"programs": "containerd has another root folder"}
    except OSError as error:
        return {"programs": f"containerd's environment cannot be read: {error}"}
    search = next((word[5:].decode() for word in environ if word.startswith(b"PATH=")), "")
    facts: dict[str, str] = {}
    for program in PROGRAMS:
        if found := shutil.which(program, path=search):
            facts[program] = found
            if version := program_version(found):
                facts[f"{program}_version"] = version
    return facts


def _listener(path: str) -> int:
    """Return the process that listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(ASK_S)
        peer.connect(path)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, _, _ = struct.unpack("iII", credentials)
    if pid == 0:
        raise OSError("it runs in another process namespace")
    return int(pid)
