"""A snapshotter that restores lazily while it is told to."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from inferx.exec.agent.ports import Capability, Live, PodSpec, Snapshotter

__all__ = ["Lazily"]


class Lazily:
    """Says whether restores are lazy."""

    def __init__(self) -> None:
        self.now = False

    @contextmanager
    def when(self, lazy: bool) -> Generator[None]:  # noqa: FBT001 - it is what is asked.
        """Restore lazily in the body, or not."""
        self.now = lazy
        try:
            yield
        finally:
            self.now = False

    def over(self, snapshotter: Snapshotter) -> Snapshotter:
        """Return a snapshotter that listens to this."""
        return _Over(self, snapshotter)


class _Over:
    def __init__(self, lazily: Lazily, inner: Snapshotter) -> None:
        self.name = inner.name
        self._lazily = lazily
        self._inner = inner

    def probe(self) -> Capability:
        return self._inner.probe()

    def dump(
        self, spec: PodSpec, live: Live, into: Path, *, leave: bool, keep_connections: bool = False
    ) -> None:
        self._inner.dump(spec, live, into, leave=leave, keep_connections=keep_connections)

    def restore(
        self, spec: PodSpec, source: Path, *, lazy: bool = False, keep_connections: bool = False
    ) -> Live:
        return self._inner.restore(
            spec, source, lazy=lazy or self._lazily.now, keep_connections=keep_connections
        )
