"""L0: a journal of a run, fed to fresh machines, gives the same bytes; a changed entry is found."""

import io
import struct
from collections.abc import Iterator
from zlib import crc32

import msgspec
import pytest

from inferx.core.commands import Dispatch
from inferx.core.events import RequestArrived
from inferx.core.journal import (
    JournalError,
    JournalReader,
    JournalWriter,
    Recorded,
    replay,
)
from inferx.core.machine.agent import Agent
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.step import Step
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId, RequestId, RouterId
from inferx.load import load_bundle
from inferx.sim.driver import Simulation
from inferx.sim.profile import load_profile
from inferx.sim.scenarios import SCENARIOS
from inferx.sim.world import World

PROFILE = {"snapshot": "criu-memfd", "loader": "serverlessllm", "none": "safetensors"}
TRIED = ("nodes lost and back", "three routers, lossy links", "starts that fail")
SEED = 3


def record(policy: str, scenario: str) -> tuple[dict[str, bytes], World]:
    """Return the journal of each machine of a run, by name."""
    files: dict[str, io.BytesIO] = {}

    def wrap(name, machine):
        files[name] = io.BytesIO()
        kind = name.partition("/")[0]
        return Recorded(machine, JournalWriter(files[name], kind, {"name": name, "seed": SEED}))

    bundle = load_bundle(policy)
    chosen = next(s for s in SCENARIOS if s.name == scenario)
    world = chosen.world(load_profile(PROFILE[bundle.mechanism]))
    Simulation(world, bundle, seed=SEED, wrap=wrap).run([chosen.trace()])
    return {name: file.getvalue() for name, file in files.items()}, world


def fresh(name: str, policy: str, world: World):
    """The machine that `name` was when the run began."""
    bundle = load_bundle(policy)
    scheduler = Scheduler(
        world.nodes,
        world.functions,
        bundle,
        stream(SEED, "policy.scheduler"),
        routers=world.routers,
    )
    kind, _, rest = name.partition("/")
    if kind == "agent":
        return Agent(NodeId(int(rest.partition("/")[0])))
    if kind == "router":
        rng = stream(SEED, f"policy.router/{rest}")
        return Router(RouterId(int(rest)), scheduler.cluster.functions, bundle, rng)
    if world.prepared == "remote":
        scheduler.assume_remote([FunctionId(f) for f in range(len(world.functions))])
    return scheduler


@pytest.mark.parametrize("scenario", TRIED)
@pytest.mark.parametrize("policy", ["default", "inferx-reference"])
def test_inv_7_a_recorded_run_replays_byte_for_byte(policy: str, scenario: str) -> None:
    journals, world = record(policy, scenario)
    names = {name.partition("/")[0] for name in journals}
    assert names == {"scheduler", "router", "agent"}
    for name, written in journals.items():
        reader = JournalReader(io.BytesIO(written))
        assert reader.config == {"name": name, "seed": SEED}
        entries = list(reader)
        assert not reader.truncated
        assert replay(reader.machine, fresh(name, policy, world), entries) is None
        again = io.BytesIO()
        recorded = Recorded(
            fresh(name, policy, world), JournalWriter(again, reader.machine, reader.config)
        )
        for entry, (now_ns, events) in zip(entries, told(written), strict=True):
            assert entry.now_ns == now_ns
            recorded.step(now_ns, events)
        assert again.getvalue() == written


def told(written: bytes) -> Iterator[tuple[int, tuple]]:
    from inferx.core.journal import _EVENTS

    reader = JournalReader(io.BytesIO(written))
    for entry in reader:
        yield entry.now_ns, _EVENTS[reader.machine].decode(entry.events)


def test_a_changed_entry_is_reported_at_exactly_that_entry() -> None:
    journals, world = record("default", "nodes lost and back")
    rng = stream(SEED, "mutations")
    for name in ("scheduler", "router/0", "agent/0/0"):
        entries = list(JournalReader(io.BytesIO(journals[name])))
        answered = [n for n, e in enumerate(entries) if msgspec.msgpack.decode(e.step)["commands"]]
        for at in rng.choice(answered, min(4, len(answered)), replace=False):
            step = msgspec.msgpack.decode(entries[at].step)
            step["commands"] = step["commands"][:-1]
            changed = list(entries)
            changed[at] = msgspec.structs.replace(
                entries[at], step=msgspec.Raw(msgspec.msgpack.encode(step))
            )
            kind = name.partition("/")[0]
            found = replay(kind, fresh(name, "default", world), changed)
            assert found is not None
            assert (found.entry, found.now_ns) == (at, entries[at].now_ns)
            assert found.got is not None
            assert found.got.commands[:-1] == found.expected.commands


def test_a_changed_event_is_reported_where_it_first_matters() -> None:
    journals, world = record("default", "starts that fail")
    entries = list(JournalReader(io.BytesIO(journals["router/0"])))
    # The first request never came: its dispatch, or the ask for it, is missed at once.
    entries[0] = msgspec.structs.replace(entries[0], events=msgspec.Raw(msgspec.msgpack.encode(())))
    found = replay("router", fresh("router/0", "default", world), entries)
    assert found is not None
    assert found.entry == 0
    assert found.events == ()


class Broken:
    def step(self, now_ns, events):
        raise ValueError("no more")


class Quiet:
    def step(self, now_ns, events):
        return Step((), (Dispatch(RequestId(1), 2),), None)


def small(kind: str = "router") -> bytes:
    file = io.BytesIO()
    recorded = Recorded(Quiet(), JournalWriter(file, kind, {"a": [1, None, "b"]}))
    for now_ns in range(3):
        recorded.step(now_ns, (RequestArrived(RequestId(now_ns), FunctionId(0)),))
    return file.getvalue()


def test_a_machine_that_raises_diverges_there() -> None:
    found = replay("router", Broken(), JournalReader(io.BytesIO(small())))
    assert found is not None
    assert (found.entry, found.got, found.error) == (0, None, "ValueError: no more")
    assert replay("router", Quiet(), JournalReader(io.BytesIO(small()))) is None


def test_a_journal_cut_anywhere_reads_up_to_the_cut() -> None:
    whole = small()
    reader = JournalReader(io.BytesIO(whole))
    header = reader._file.tell()
    starts = [header, *(reader._file.tell() for _ in reader)]
    for cut in range(header, len(whole)):
        reader = JournalReader(io.BytesIO(whole[:cut]))
        count = len(list(reader))
        assert count == sum(start <= cut for start in starts[1:])
        assert reader.truncated == (cut not in starts)


def test_a_torn_last_frame_ends_the_journal_and_a_damaged_one_before_does_not() -> None:
    whole = bytearray(small())
    torn = bytes(whole[:-1]) + bytes([whole[-1] ^ 1])
    reader = JournalReader(io.BytesIO(torn))
    assert len(list(reader)) == 2
    assert reader.truncated
    reader = JournalReader(io.BytesIO(bytes(whole)))
    first = reader._file.tell()
    whole[first + 12] ^= 1
    with pytest.raises(JournalError, match="entry 0: its checksum is wrong"):
        list(JournalReader(io.BytesIO(bytes(whole))))
    whole[first : first + 4] = struct.pack("<I", 1 << 31)
    with pytest.raises(JournalError, match="entry 0: 2,147,483,648 bytes"):
        list(JournalReader(io.BytesIO(bytes(whole))))


def frame(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), crc32(payload)) + payload


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"", "no journal"),
        (b"something else altogether", "no journal"),
        (b"inferx-journal\n", "ends in its header"),
        (b"inferx-journal\n" + frame(b"\xc1"), "the journal's header"),
        (b"inferx-journal\n" + frame(b"\x81\xa7machine\xa1\xff"), "the journal's header"),
        (
            b"inferx-journal\n"
            + frame(msgspec.msgpack.encode({"machine": "router", "format": 9, "config": {}})),
            "format 9",
        ),
        (
            b"inferx-journal\n"
            + frame(msgspec.msgpack.encode({"machine": "toaster", "format": 1, "config": {}})),
            "of a 'toaster'",
        ),
    ],
)
def test_what_is_no_journal_is_refused(written: bytes, told: str) -> None:
    with pytest.raises(JournalError, match=told):
        JournalReader(io.BytesIO(written))


def test_entries_of_another_machine_are_refused() -> None:
    with pytest.raises(JournalError, match="toaster"):
        JournalWriter(io.BytesIO(), "toaster", {})
    reader = JournalReader(io.BytesIO(small()))
    with pytest.raises(JournalError, match="entry 0: no step of a agent"):
        replay("agent", Quiet(), reader)
    file = io.BytesIO(small())
    file.seek(0, io.SEEK_END)
    file.write(frame(b"\xc1"))
    file.seek(0)
    with pytest.raises(JournalError, match="entry 3"):
        list(JournalReader(file))
