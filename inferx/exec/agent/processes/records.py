"""What a sandbox of plain processes remembers of its pods, so that a new agent finds them again."""

from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import told
from inferx.exec.files import aside_of, write_whole

__all__ = ["Record", "Records"]


class Record(msgspec.Struct, kw_only=True):
    """One pod.

    Attributes:
        folder: Where its logs are.
        init: Pid of the process that holds its namespaces; 0 where it has none of its own.
        pid: Of the command's process; 0 until it is there.
        boot: During which boot of the machine all this holds.
    """

    pod: str
    folder: str
    boot: str
    init: int = 0
    init_started: int = 0
    pid: int = 0
    started: int = 0
    network: str = ""


class Records:
    """A folder with a file for each pod, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, record: Record) -> None:
        """Write or replace a pod's record."""
        with told(f"pod {record.pod}: cannot write its record", phase="record"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._file(record.pod), msgspec.json.encode(record))

    def load(self, pod: str) -> Record | None:
        """Return a pod's record, or None; one that cannot be read is an error."""
        try:
            return msgspec.json.decode(self._file(pod).read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, *UNDECODABLE) as error:
            raise AgentError(
                f"pod {pod}: cannot read its record {self._file(pod)}: {error}", phase="record"
            ) from error

    def remove(self, pod: str) -> None:
        """Forget a pod; one that is not known is fine."""
        with told(f"pod {pod}: cannot remove its record", phase="record"):
            for file in (aside_of(self._file(pod)), self._file(pod)):
                file.unlink(missing_ok=True)

    def pods(self) -> list[str]:
        """Names of all pods with a record."""
        if not self.folder.is_dir():
            return []
        return sorted(each.stem for each in self.folder.glob("*.json"))

    def begun(self) -> list[str]:
        """Names of pods whose record was being written when its writer was killed."""
        return sorted(
            each.name.removeprefix(".").removesuffix(".json.new")
            for each in self.folder.glob(".*.json.new")
        )

    def _file(self, pod: str) -> Path:
        return self.folder / f"{pod}.json"
