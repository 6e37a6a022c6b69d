"""The nodes of a term as they are registered: their numbers, and what they have.

Law: a number is a node's for as long as it is the same one; another under its name gets the next.
"""

import logging
from collections.abc import Callable

import msgspec

from inferx.core.events import NodeDescribed, NodeLost
from inferx.core.types import NodeId, NodeSpec
from inferx.exec.scheduler.nodes import NodeLines
from inferx.exec.state.objects.bodies import NodeInfo
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.wire.names import Peer
from inferx.exec.wire.sense import WireError, check

__all__ = ["NodeBook", "resources_of"]

_log = logging.getLogger(__name__)


class NodeBook:
    """Numbers nodes, tells the machine of them, and has them called.

    Args:
        lines: Calls them.
        post: Takes what the machine is told.
    """

    def __init__(self, lines: NodeLines, post: Callable[[NodeDescribed | NodeLost], None]) -> None:
        self._lines = lines
        self._post = post
        self._known: dict[str, tuple[NodeId, NodeSpec]] = {}
        self._next_node = self._next_gpu = 0

    def id_of(self, name: str) -> NodeId | None:
        """Return a node's number; None if none is called so."""
        found = self._known.get(name)
        return None if found is None else found[0]

    def changed(self, node: DataObject) -> None:
        """Describe a node that is new, or that is another one under an old name; and call it."""
        info, spec = msgspec.convert(node.object, NodeInfo), resources_of(node)
        if spec is None:
            return
        address = f"{info.naIp or info.nodeIp}:{info.podMgrPort}"
        known = self._known.get(node.name)
        if known is not None and known[1] == spec:
            self._lines.move(known[0], address)
            return
        if known is not None:
            self._post(NodeLost(known[0]))
            self._lines.remove(known[0])
        number = NodeId(self._next_node)
        self._next_node += 1
        peer = Peer(number, self._next_gpu, spec.gpus)
        self._next_gpu += spec.gpus
        self._known[node.name] = number, spec
        self._post(NodeDescribed(number, spec))
        self._lines.add(number, node.name, address, peer)


def resources_of(node: DataObject) -> NodeSpec | None:
    """Return what a node says that it has; None where that makes no sense."""
    try:
        spec = msgspec.convert(msgspec.convert(node.object, NodeInfo).resources, NodeSpec)
        check(spec)
    except (msgspec.ValidationError, WireError) as error:
        _log.warning("node %s: its resources: %s; it is left out", node.name, error)
        return None
    return spec
