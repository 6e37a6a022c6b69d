"""What a command leaves on disk: `RUN/`, written run by run, complete or not there at all.

    summary.json      rows and paired differences
    requests.parquet  one row a request: times, outcome, cause
    decisions.parquet one row a decision of the scheduler; repeated deferrals are one
    timeline.parquet  one row a pod, GPU and state: who held what, when; and disks, a row a change
    functions.json    and other files that the command attaches
    report.html       where the command asks for a page: drawn from the files above
    manifest.json     command, versions, commit, seeds, checksums

Laws:
1. The same records give the same bytes in every file; in `manifest.json`, outside `wall_clock`.
2. Files grow in a hidden sibling of `RUN`, which is renamed last. A reader never sees half a run.
3. Memory holds one record at a time. One record is at least one row group of each table.
4. Only a former run is ever overwritten.
"""

import contextlib
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from inferx.core.errors import InferXError, Terminated
from inferx.core.units import NS_PER_S
from inferx.sim.aside import make_aside, put_in_place
from inferx.sim.manifest import Manifest, NodeFact, facts_of, git_fact, input_facts, node_facts
from inferx.sim.manifest import versions as package_versions
from inferx.sim.metrics import QUANTILE_METHOD, SummaryRow, summarise
from inferx.sim.oracle.regret import Regret
from inferx.sim.record import RunRecord
from inferx.sim.stats import PairedDifference, compare
from inferx.sim.tables import SCHEMAS, decisions_table, requests_table, timeline_table
from inferx.sim.terminal import summary_table

__all__ = ["OutputError", "RunWriter", "Summary", "read_manifest", "read_summary", "summary_table"]

_T = TypeVar("_T")
_FORMAT: Final = 1
_ROWS_PER_GROUP: Final = 1 << 20
_OWN: Final = ("summary.json", "manifest.json", *(f"{name}.parquet" for name in SCHEMAS))


class OutputError(InferXError):
    """A run directory that cannot be written or read as asked."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `summary.json` holds."""

    format: int
    complete: bool
    quantile_method: str
    slo_ttft_s: float
    warmup_s: float
    baseline: str | None
    rows: list[SummaryRow]
    paired: list[PairedDifference]


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"


def _dictionaries(schema: pa.Schema) -> list[str]:
    """Return paths of columns whose values repeat: all but times, which pack better bare."""
    return [
        f"{name}.list.element" if pa.types.is_list(kind) else name
        for name, kind in zip(schema.names, schema.types, strict=True)
        if not name.endswith("_ns")
    ]


@contextmanager
def _whole() -> Generator[None]:
    """Put off Ctrl-C and SIGTERM until the block is over: a record's tables never part."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if came:
        raise Terminated if signal.SIGTERM in came else KeyboardInterrupt


def _is_run(path: Path) -> bool:
    return path.is_dir() and ((path / "manifest.json").is_file() or not any(path.iterdir()))


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, innermost first."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return new


class RunWriter:
    """Writes one run directory. A context manager: it finishes, or leaves nothing.

    Leaving the block by `KeyboardInterrupt` finishes with the records added so far and
    `"complete": false`; any other exception leaves no directory.

    Records are added in the order of the command, (policy, seed); parallel jobs hand theirs over
    in that order, so that the bytes do not depend on their number.
    """

    def __init__(
        self,
        path: Path,
        *,
        command: Sequence[str],
        inputs: Mapping[str, Path] | None = None,
        settings: Mapping[str, str] | None = None,
        baseline: str | None = None,
        slo_ttft_s: float = 2.0,
        warmup_ns: int = 0,
        overwrite: bool = False,
        page: Callable[[Path], object] | None = None,
    ) -> None:
        """Refuse at once what would be refused at the end; checksum the inputs as they are now.

        `page` draws into the directory that it is given, from the run's files and a manifest that
        does not tell of the page yet. If it fails, so does the run, and nothing is left.
        """
        self.path = path = Path(path)
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; choose another name, or give --overwrite")
        if path.exists() and not _is_run(path):
            raise OutputError(f"{path} is not a run: it has no manifest.json; it is left alone")
        self.rows: list[SummaryRow] = []
        self._command = list(command)
        self._settings = dict(sorted((settings or {}).items()))
        self._inputs = input_facts(inputs or {})
        self._baseline, self._slo_ttft_s, self._warmup_ns = baseline, slo_ttft_s, warmup_ns
        self._page = page
        self._cluster: list[NodeFact] = []
        self._functions = 0
        # The one place of the simulator that asks the wall clock: the manifest tells the date.
        self._started = datetime.now(UTC)
        self._made = _make_folders(path.parent)
        self._folder = make_aside(path)
        self._tables = {
            name: pq.ParquetWriter(
                self._folder / f"{name}.parquet",
                schema,
                use_dictionary=_dictionaries(schema),  # type: ignore[arg-type]  # or a list of paths
                version="2.6",
                compression="zstd",
                compression_level=3,
                data_page_version="1.0",
                write_statistics=True,
            )
            for name, schema in SCHEMAS.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._folder.exists():
            return
        if kind is None or issubclass(kind, KeyboardInterrupt):
            try:
                self.finish(complete=kind is None)
            except Exception:
                self.abort()
                raise
        else:
            self.abort()

    @property
    def paired(self) -> list[PairedDifference]:
        """Differences from the baseline, over the rows added so far; empty without a baseline."""
        return [] if self._baseline is None else compare(self.rows, self._baseline)

    def add(self, record: RunRecord, regret: Regret | None = None) -> SummaryRow:
        """Write one record's rows and return its summary."""
        row = summarise(record, slo_ttft_s=self._slo_ttft_s, warmup_ns=self._warmup_ns)
        row = msgspec.structs.replace(row, regret=regret)
        if not self.rows:
            self._cluster, self._functions = node_facts(record.nodes), len(record.functions)
        assert node_facts(record.nodes) == self._cluster, "every record of a run has one cluster"
        tables: dict[str, pa.Table] = {
            "requests": requests_table(record),
            "decisions": decisions_table(record),
            "timeline": timeline_table(record),
        }
        with _whole():
            for name, table in tables.items():
                if table.num_rows:
                    self._tables[name].write_table(table, row_group_size=_ROWS_PER_GROUP)
            self.rows.append(row)
        return row

    def attach(self, name: str, content: str) -> None:
        """Write a file of the command's own beside the tables."""
        assert name not in _OWN, f"{name} is the writer's"
        (self._folder / name).write_text(content, encoding="utf-8")

    def finish(self, *, complete: bool = True) -> Summary:
        """Write the summary and the manifest, and put the directory in its place."""
        with _whole():
            return self._finish(complete=complete)

    def _finish(self, *, complete: bool) -> Summary:
        for table in self._tables.values():
            table.close()
        summary = Summary(
            format=_FORMAT,
            complete=complete,
            quantile_method=QUANTILE_METHOD,
            slo_ttft_s=self._slo_ttft_s,
            warmup_s=self._warmup_ns / NS_PER_S,
            baseline=self._baseline,
            rows=self.rows,
            paired=self.paired,
        )
        (self._folder / "summary.json").write_bytes(_json(summary))
        manifest = self._manifest(complete=complete)
        told = self._folder / "manifest.json"
        told.write_bytes(_json(manifest))
        if self._page is not None:
            # The page quotes the manifest, which then gets the page's checksum.
            self._page(self._folder)
            known = {*manifest.outputs, told.name}
            fresh = [file for file in sorted(self._folder.iterdir()) if file.name not in known]
            drawn = {file.name: facts_of(file, file.name) for file in fresh}
            outputs = dict(sorted({**manifest.outputs, **drawn}.items()))
            told.write_bytes(_json(msgspec.structs.replace(manifest, outputs=outputs)))
        # The temporary directory is private; a run is as open as any other output.
        self._folder.chmod(0o755)
        put_in_place(self._folder, self.path)
        return summary

    def abort(self) -> None:
        """Leave nothing behind."""
        for table in self._tables.values():
            table.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # Somebody else has put something there.
                folder.rmdir()

    def detach(self, name: str) -> None:
        """Take back what was attached."""
        (self._folder / name).unlink()

    def _manifest(self, *, complete: bool) -> Manifest:
        ended = datetime.now(UTC)
        files = sorted(child for child in self._folder.iterdir() if child.is_file())
        found = package_versions()
        return Manifest(
            format=_FORMAT,
            complete=complete,
            command=self._command,
            policies=list(dict.fromkeys(row.policy for row in self.rows)),
            seeds=sorted({row.seed for row in self.rows}),
            baseline=self._baseline,
            slo_ttft_s=self._slo_ttft_s,
            warmup_s=self._warmup_ns / NS_PER_S,
            git=git_fact(),
            versions={name: found[name] for name in sorted(found)},
            cluster=self._cluster,
            functions=self._functions,
            inputs=self._inputs,
            outputs={file.name: facts_of(file, file.name) for file in files},
            settings=self._settings,
            wall_clock={
                "started": self._started.isoformat(timespec="seconds"),
                "ended": ended.isoformat(timespec="seconds"),
                "seconds": round((ended - self._started).total_seconds(), 3),
            },
        )


def read_summary(path: Path) -> Summary:
    """Return what `RUN/summary.json` holds."""
    return _read(path / "summary.json", Summary)


def read_manifest(path: Path) -> Manifest:
    """Return what `RUN/manifest.json` holds."""
    return _read(path / "manifest.json", Manifest)


def _read(file: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise OutputError(f"{file} is not part of a run that this version wrote") from error
