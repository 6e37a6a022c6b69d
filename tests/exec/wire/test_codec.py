"""Whatever the kernel says arrives as it was said, through real protobuf bytes."""

from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core import commands, events
from inferx.core.commands import NodeCommand
from inferx.core.events import FoundPod, HeldLease, NodeJoined
from inferx.core.types import FunctionId, GpuId, NodeId, PodId, RouterId, Tier
from inferx.exec.wire.codec import (
    FROM_NODE,
    FROM_ROUTER,
    TO_NODE,
    TO_ROUTER,
    Codec,
    Direction,
    WireError,
)
from inferx.exec.wire.generate import ROOT, generate
from inferx.exec.wire.names import FunctionNames, Peer

NAMES = ("t/n/f@1", "t/n/g@1", "t/n/f@2")
HERE = FunctionNames(NAMES)
THERE = FunctionNames(("x/y/z@9", *reversed(NAMES)))
"""The other side counts otherwise, and knows one more."""
PEER, ME = Peer(3, first_gpu=20, gpus=4), Peer(3, first_gpu=0, gpus=4)
INTS = st.integers(0, (1 << 62) - 1)

LEAVES = {
    int: INTS,
    bool: st.booleans(),
    str: st.text(max_size=9),
    FunctionId: st.sampled_from([FunctionId(f) for f in range(len(NAMES))]),
    PodId: INTS,
    NodeId: st.just(NodeId(3)),
    RouterId: st.just(RouterId(3)),
    Tier: st.sampled_from(Tier),
    GpuId: st.integers(20, 23),
}


def values(hint):
    if hint in LEAVES:
        return LEAVES[hint]
    supertype = getattr(hint, "__supertype__", None)
    if supertype is int:
        return INTS
    inner = get_args(hint)
    if inner:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    return structs(hint)


def structs(kind: type[msgspec.Struct]):
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


def shifted(struct: msgspec.Struct, heard: type[msgspec.Struct] | None = None) -> object:
    """What the other side should understand: its own numbers for functions and GPUs."""
    heard = heard or type(struct)

    def convert(hint, value):
        if hint is FunctionId:
            return THERE.id_of(HERE.name_of(value))
        if hint is GpuId:
            return value - 20
        inner = get_args(hint)
        if inner:
            return [convert(inner[0], one) for one in value]
        return shifted(value) if isinstance(value, msgspec.Struct) else value

    hints = get_type_hints(type(struct))
    names = [n for n in struct.__struct_fields__ if n in heard.__struct_fields__]
    return [convert(hints[name], getattr(struct, name)) for name in names]


def plain(struct: object) -> object:
    if isinstance(struct, msgspec.Struct):
        return [plain(getattr(struct, name)) for name in struct.__struct_fields__]
    return [plain(one) for one in struct] if isinstance(struct, tuple) else struct


@pytest.mark.parametrize(
    "direction",
    [TO_NODE, FROM_NODE, TO_ROUTER, FROM_ROUTER],
    ids=["to node", "from node", "to router", "from router"],
)
@given(data=st.data())
def test_what_is_sent_is_what_arrives(direction: Direction, data) -> None:
    kind = data.draw(st.sampled_from(sorted(direction.sent, key=lambda one: one.__name__)))
    told = data.draw(structs(kind))
    wire = Codec(HERE).encode(direction, told, PEER).SerializeToString()
    heard = Codec(THERE).decode(direction, direction.envelope.FromString(wire), ME)
    slot, _ = direction.sent[kind]
    assert type(heard) is direction.received[slot][0]
    assert plain(heard) == shifted(told, type(heard))


def test_everything_that_crosses_a_wire_can() -> None:
    assert set(TO_NODE.sent) == set(get_args(NodeCommand))
    assert set(FROM_NODE.sent) == set(get_args(events.Fact))
    from_router = {commands.ReportLeases, *get_args(commands.RouterCommand)}
    assert set(FROM_ROUTER.sent) == from_router - {commands.Dispatch, commands.Refuse}


def test_what_is_not_known_here_is_refused() -> None:
    peer = Peer(0, gpus=2)
    codec = Codec(FunctionNames())
    sent = commands.AskLease(RouterId(0), FunctionId(0), 1, 0, 0, 1)
    with pytest.raises(WireError, match="function 't/n/f@1' is not known here"):
        codec.decode(FROM_ROUTER, Codec(HERE).encode(FROM_ROUTER, sent, peer), peer)
    load = commands.ReportLoad(RouterId(0), 1, (FunctionId(0),), (1,), (1,), (1,))
    with pytest.raises(WireError, match="not known here"):
        codec.decode(FROM_ROUTER, Codec(HERE).encode(FROM_ROUTER, load, peer), peer)
    stop = commands.Stop(NodeId(0), 1, 1, PodId(1), FunctionId(0), (GpuId(2),))
    with pytest.raises(WireError, match="GPU 2 of a node that has 2"):
        Codec(HERE).decode(TO_NODE, Codec(HERE).encode(TO_NODE, stop, peer), peer)
    copy = Codec(HERE).encode(
        TO_NODE, commands.Copy(NodeId(0), 1, 1, FunctionId(0), Tier.NVME, Tier.REMOTE), peer
    )
    copy.copy.source = 9
    with pytest.raises(WireError, match="tier 9; expected one of"):
        Codec(HERE).decode(TO_NODE, copy, peer)
    with pytest.raises(WireError, match="a message of kind None"):
        codec.decode(TO_NODE, TO_NODE.envelope(), peer)


def test_what_is_there_is_told_though_its_function_is_no_more() -> None:
    codec, peer = Codec(FunctionNames(("t/n/g@1",))), Peer(0, gpus=4)
    found = FoundPod(PodId(7), FunctionId(0), (GpuId(1),), "ready")
    joined = NodeJoined(NodeId(0), 1, (found,), (FunctionId(0), FunctionId(1)), (FunctionId(2),))
    heard = codec.decode(FROM_NODE, Codec(HERE).encode(FROM_NODE, joined, peer), peer)
    assert isinstance(heard, NodeJoined)
    assert [pod.function for pod in heard.pods] == [-1]
    assert (heard.snapshots, heard.remote) == ((0,), ())
    leases = commands.ReportLeases(RouterId(0), (HeldLease(1, 7, FunctionId(0), 2),))
    heard = codec.decode(FROM_ROUTER, Codec(HERE).encode(FROM_ROUTER, leases, peer), peer)
    assert heard.leases[0].function == -1


def test_the_generated_module_is_what_its_source_gives(tmp_path: Path) -> None:
    for written in generate(tmp_path):
        assert written.read_text() == (ROOT / written.relative_to(tmp_path)).read_text()
