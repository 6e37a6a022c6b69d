"""Network namespaces: each pod has one, so that clones of a snapshot may all serve on one port.

A bridge joins them to the host. Nothing of it leads out of the node: no route, no translation.
Made by iproute2's `ip`.
"""

import ipaddress
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferx.exec.agent.ports import AgentError, Capability

__all__ = ["BridgedNetwork", "HostNetwork", "Network", "Place"]

_NAMESPACES = Path("/var/run/netns")
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod is reached: its namespace (a path; empty is the host's) and its address."""

    namespace: str
    host: str


class HostNetwork:
    """No namespaces: pods share the host's network, and a port serves one of them."""

    def probe(self) -> Capability:
        """It is always there."""
        return Capability(name="network/host", available=True)

    def enter(self, pod: str) -> Place:
        """Return the host itself."""
        del pod
        return Place("", "127.0.0.1")

    def leave(self, pod: str) -> None:
        """Nothing was made."""

    def recover(self, pods: frozenset[str]) -> None:
        """Nothing was made."""

    def close(self) -> None:
        """Nothing was made."""


class BridgedNetwork:
    """A namespace and an address for each pod, on a bridge of this agent.

    Pods hear the host and not each other. Link addresses follow from IP addresses: what a host or a
    pod has learned of one stays true when its holder changes, for it would believe it for a minute.

    Attributes:
        name: Of the bridge; also the prefix of namespaces. At most 8 characters.
        subnet: The bridge has its first address; pods take the others in turn, so that who has not
            heard yet of a pod's end does not meet another one at its address.
    """

    def __init__(self, name: str, subnet: ipaddress.IPv4Network) -> None:
        self.name = name
        self.subnet = subnet
        self._alias = f"inferx-agent-{name}"
        self._lock = threading.Lock()
        self._taken: dict[str, ipaddress.IPv4Address] = {}
        self._next = 0
        """The number of the address that is looked at first."""

    def probe(self) -> Capability:
        """Make and remove a namespace."""
        # Of this process, for others may ask at the same time; `recover` removes what stays.
        name = f"{self.name}-probe-{os.getpid()}"
        if shutil.which("ip") is None:
            reason = "no ip command; expected iproute2"
            return Capability(name="network/bridge", available=False, reason=reason)
        try:
            _ip(f"netns add {name}", f"netns del {name}")
        except AgentError as error:
            return Capability(name="network/bridge", available=False, reason=str(error))
        facts = {"subnet": str(self.subnet), "bridge": self.name}
        return Capability(name="network/bridge", available=True, facts=facts)

    def enter(self, pod: str) -> Place:
        """Make a pod's namespace; return it and the pod's address."""
        with self._lock:
            self._make_bridge()
            address = self._free()
            self._taken[pod] = address
        try:
            self._connect(pod, address)
        except AgentError:
            self.leave(pod)
            raise
        return Place(str(_NAMESPACES / self._namespace(pod)), str(address))

    def leave(self, pod: str) -> None:
        """Remove a pod's namespace, and its end on the bridge with it; not there is fine."""
        if (_NAMESPACES / self._namespace(pod)).exists():
            _ip(f"netns del {self._namespace(pod)}")
        with self._lock:
            self._taken.pop(pod, None)

    def recover(self, pods: frozenset[str]) -> None:
        """After a restart: know the addresses of `pods` again, remove what is left of others."""
        prefix = f"{self.name}-"
        names = sorted(path.name for path in _NAMESPACES.glob(f"{prefix}*"))
        for name in names:
            pod = name.removeprefix(prefix)
            if pod not in pods:
                self.leave(pod)
                continue
            for address in _addresses(name):
                if address in self.subnet:
                    self._taken[pod] = address
                    self._next = max(self._next, int(address) + 1)

    def close(self) -> None:
        """Remove the bridge, when no pod is on it any more; one of another's is left alone."""
        if _alias(self.name) == self._alias:
            _ip(f"link del {self.name}")

    def _namespace(self, pod: str) -> str:
        return f"{self.name}-{pod}"

    def _free(self) -> ipaddress.IPv4Address:
        """Return the next free address, round and round.

        One that has just been left is not given at once: whoever spoke to it may hold connections.
        """
        first, last = int(self.subnet[2]), int(self.subnet[-2])
        taken = {int(address) for address in self._taken.values()}
        for number in itertools.chain(
            range(max(first, self._next), last + 1), range(first, last + 1)
        ):
            if number not in taken:
                self._next = number + 1
                return ipaddress.IPv4Address(number)
        raise AgentError(f"network {self.subnet}: all addresses taken", phase="network")

    def _connect(self, pod: str, address: ipaddress.IPv4Address) -> None:
        name = self._namespace(pod)
        outside = f"{self.name}{int(address) & 0xFFFF:x}"
        if (_NAMESPACES / name).exists():
            _ip(f"netns del {name}")
        # It may be left of a namespace that is only now on its way out.
        if _there(outside):
            _remove_link(outside)
        _ip(
            f"netns add {name}",
            f"link add {outside} type veth peer name eth0 address {_mac(address)} netns {name}",
            f"link set {outside} master {self.name} up",
            f"link set {outside} type bridge_slave isolated on",
        )
        _ip(
            f"link set eth0 address {_link_address(address)}",
            f"address add {address}/{self.subnet.prefixlen} dev eth0",
            "link set lo up",
            "link set eth0 up",
            namespace=name,
        )

    def _make_bridge(self) -> None:
        if not _there(self.name):
            first = next(self.subnet.hosts())
            _ip(
                # Without one of its own it has that of some pod, and another when that pod leaves.
                f"link add {self.name} address {_link_address(first)} type bridge",
                f"link set {self.name} alias {self._alias}",
                f"address add {first}/{self.subnet.prefixlen} dev {self.name}",
                f"link set {self.name} up",
            )
        elif _alias(self.name) != self._alias:
            raise AgentError(
                f"network: {self.name} is there, and not this agent's; expected no such link",
                phase="network",
            )


def _mac(address: ipaddress.IPv4Address) -> str:
    """Return the link address that goes with an address.

    Whoever gets the address of a pod that has just left is then found at once: the host remembers
    for seconds which link address went with it, and would send to one that is gone.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x49, *address.packed))


def _ip(*commands: str, namespace: str = "") -> None:
    """Have `ip` do all of these, or as many as it can before one fails."""
    inside = ["-n", namespace] if namespace else []
    done = _run([*inside, "-batch", "-"], "\n".join(commands))
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no word of why"])[0]
        raise AgentError(f"ip {commands[0]}: {told}", phase="network")


def _run(words: Sequence[str], given: str = "") -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["ip", *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentError(f"ip cannot be run: {error}", phase="network") from error


def _told(*words: str) -> list[Any]:
    done = _run(["-json", *words])
    return list(json.loads(done.stdout)) if not done.returncode and done.stdout.strip() else []


def _remove_link(link: str) -> None:
    """Remove a link, unless it goes by itself in this moment."""
    try:
        _ip(f"link del {link}")
    except AgentError:
        if _there(link):
            raise


def _there(link: str) -> bool:
    return bool(_told("link", "show", "dev", link))


def _alias(link: str) -> str:
    return "".join(str(told.get("ifalias", "")) for told in _told("link", "show", "dev", link))


def _addresses(namespace: str) -> Iterator[ipaddress.IPv4Address]:
    for link in _told("-n", namespace, "-4", "address"):
        for address in link.get("addr_info", ()):
            yield ipaddress.IPv4Address(address["local"])


def _link_address(address: ipaddress.IPv4Address) -> str:
    """Return a locally administered link address, the same for an IP address at all times."""
    return ":".join(f"{octet:02x}" for octet in (2, 0, *address.packed))


Network = HostNetwork | BridgedNetwork
