"""Where GPU state goes when it does not go back to where it was: the map that the driver wants.

A map is one of all GPUs that the driver showed a process when it was checkpointed, used or not and
hidden from it or not: each is named once as old. New ones are GPUs of this node, each at most once
and of the old one's model. Old and new are the same set on one node, and have nothing in common
where a snapshot came from another.
"""

from collections.abc import Mapping, Sequence

from inferx.exec.agent.ports import AgentError

__all__ = ["full_map"]


def full_map(
    among: Mapping[str, str],
    node: Mapping[str, str],
    *,
    built_on: Sequence[str],
    onto: Sequence[str],
) -> Mapping[str, str]:
    """Return where each GPU goes when `built_on` become `onto`; empty if nothing moves.

    GPUs that the pod has no part of stay where they are if they can; the others take places that
    are left, in this node's order.

    Args:
        among: Model by UUID of all GPUs of the node where the state was made.
        node: The same of this node.
        built_on: The pod's GPUs there.
        onto: Its GPUs here, in the same order.

    Raises:
        AgentError: This node has too few GPUs of a model, though the pod does not use them all.
    """
    if tuple(built_on) == tuple(onto) and among.keys() <= node.keys():
        return {}
    moves = dict(zip(built_on, onto, strict=True))
    rest = [uuid for uuid in among if uuid not in moves]
    taken = set(moves.values())
    for uuid in rest:
        if uuid in node and uuid not in taken:
            moves[uuid] = uuid
            taken.add(uuid)
    for uuid in rest:
        if uuid in moves:
            continue
        model = among[uuid]
        place = next((one for one in node if node[one] == model and one not in taken), None)
        if place is None:
            was, here = (list(each.values()).count(model) for each in (among, node))
            raise AgentError(
                f"GPU state was made among {was} of {model}, here are {here}:"
                " the driver wants a place for each, used or not",
                phase="fit",
            )
        moves[uuid] = place
        taken.add(place)
    return moves
