"""Run an operation of the store again and again, ended or failing at its next step each time.

A step is a call into the operating system that changes something, in any thread: it is found by the
interpreter's own tracing, so the store knows nothing of it. Run as a program; see `main`.
"""

import errno
import itertools
import json
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Literal

from snapshots import draft, fill, leftovers, put, require_sound

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, SnapshotStore

_STEPS = frozenset({
    "chmod", "fchmod", "flock", "fsync", "mkdir", "open", "remove", "rename", "rmdir", "unlink",
    "utime", "write",
})  # fmt: skip
_MODULES = frozenset({"posix", "fcntl", "_io", "io"})
_CRASHED, _FAILED, _WRONG = 9, 3, 4
Mode = Literal["crash", "fail"]


class Steps:
    """Counts steps, and at one of them ends the process or raises an error, once."""

    def __init__(self, at: int, mode: Mode) -> None:
        self.count = 0
        self._at = at
        self._mode = mode
        self._lock = threading.Lock()

    def __call__(self, frame: Any, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in _STEPS:
            return
        owner = getattr(called, "__module__", None) or type(called.__self__).__module__
        if owner not in _MODULES:
            return
        with self._lock:
            self.count += 1
            mine = self.count == self._at
        if mine and self._mode == "crash":
            os._exit(_CRASHED)
        if mine:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def store_at(root: Path) -> SnapshotStore:
    return SnapshotStore(
        [
            FolderTier("dram", root / "dram", budget_bytes=100_000),
            FolderTier("nvme", root / "nvme", budget_bytes=100_000),
            FolderTier("shared", root / "shared", budget_bytes=100_000),
        ]
    )


def prepared(root: Path) -> str:
    """Make tiers where NVMe and the shared folder have one snapshot; return its id."""
    store = store_at(root)
    old = put(store.tiers[1], 1).id
    store.sink(old, "shared", keep=True)
    return old


def operate(store: SnapshotStore, name: str, old: str) -> None:
    _, nvme, _ = store.tiers
    match name:
        case "commit":
            with nvme.begin(4_000) as staging:
                _write(staging.folder)
                staging.commit(draft())
        case "abandon":
            with nvme.begin(4_000) as staging:
                _write(staging.folder)
        case "promote":
            store.promote(old, "dram")
        case "sink":
            store.sink(old, "shared", keep=False)
        case "delete":
            store.delete(old)
        case "hold":
            with nvme.hold(old, "pod", now_ns=9_999):
                pass
        case _:
            store.make_room("nvme", 99_000)


def _write(folder: Path) -> None:
    """Write as a snapshotter does, whose errors are its own."""
    try:
        fill(folder, 2)
    except OSError as error:
        raise AgentError("the writer failed") from error


def check(root: Path, name: str, old: str) -> None:
    """Recover as at an agent's start; what is there is whole, and what had to stay is there."""
    store = store_at(root)
    store.recover()
    dram, nvme, shared = (require_sound(tier) for tier in store.tiers)
    for tier in store.tiers:
        assert leftovers(tier.root) == []
        assert tier.used_bytes() == sum(one.size_bytes for one in tier.contents().manifests)
        assert tier.used_bytes() in {0, 3_100, 6_200}
    if name != "delete":
        assert shared == {old}, "the copy that nobody touches"
    if name not in {"delete", "sink", "room"}:
        assert old in nvme
    if name != "promote":
        assert dram == set()


def run(root: Path, name: str, mode: Mode) -> dict[str, object]:
    """Return how many steps there were, and what was left by errors before any recovery."""
    left: list[str] = []
    template = root / "template"
    old = prepared(template)
    for at in itertools.count(1):
        home = root / str(at)
        shutil.copytree(template, home)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _child(home, name, old, Steps(at, mode), writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, _CRASHED, _FAILED}, f"step {at}: {told}"
        if mode == "fail":
            store = store_at(home)
            found = [str(path) for tier in store.tiers for path in leftovers(tier.root)]
            if found:
                left.append(told)
        check(home, name, old)
        shutil.rmtree(home)
        if code == 0 and not told:
            return {"steps": at - 1, "left": left}
    raise AssertionError


def _child(home: Path, name: str, old: str, steps: Steps, pipe: int) -> None:
    """Operate, and say on the pipe whether the step was reached and what came of it."""
    store = store_at(home)
    code, told = 0, ""
    threading.setprofile(steps)
    sys.setprofile(steps)
    try:
        operate(store, name, old)
    except AgentError as error:
        code, told = _FAILED, str(error)
    except OSError:
        code, told = _WRONG, traceback.format_exc()
    sys.setprofile(None)
    if code == 0 and steps.count >= steps._at:
        told = "went well in spite of it"
    os.write(pipe, told.encode())
    os._exit(code)


def main() -> None:
    """Arguments: an empty folder, the operation, `crash` or `fail`. Prints one JSON object."""
    root, name, mode = sys.argv[1:]
    assert mode in {"crash", "fail"}
    print(json.dumps(run(Path(root), name, "crash" if mode == "crash" else "fail")))


if __name__ == "__main__":
    main()
