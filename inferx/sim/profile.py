"""How long a pod takes to start, move and stop: stages with a fixed part and bytes over links.

A profile is a TOML file: for each operation the stages in their order, each with its provenance.
`docs/profiles.md` tells the fields and where the shipped numbers come from.

Laws:
1. Stages follow one another; one with `overlap` runs beside the next, so that the slower rules.
2. A stage on `pcie` splits its bytes evenly over the pod's GPUs, its cap holds for each of them;
   without GPUs it is left out. Elsewhere the cap holds for the pod.
3. Jitter is one draw a stage, lognormal with mean 1, all taken when the operation begins: it
   stretches the fixed part and divides the cap. A transfer that its links bound does not vary.
"""

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import msgspec
from numpy.random import Generator

from inferx.core.errors import DescriptionError
from inferx.core.events import PhaseTiming
from inferx.core.types import FunctionSpec, Tier
from inferx.core.units import NS_PER_S
from inferx.sim.device import PATHS, UNCAPPED, NodeDevices
from inferx.sim.startup import Run, Step
from inferx.spec.serving import ServingSpec

__all__ = ["OPERATIONS", "Basis", "Operation", "Profile", "Stage", "load_profile", "profile_names"]

Operation = Literal[
    "cold", "restore", "resume", "suspend", "snapshot", "copy_in", "copy_out", "stop"
]
BytesOf = Literal["none", "weights", "device", "host", "snapshot"]
Basis = Literal["measured", "fitted", "assumed"]

OPERATIONS: tuple[Operation, ...] = (
    "cold",
    "restore",
    "resume",
    "suspend",
    "snapshot",
    "copy_in",
    "copy_out",
    "stop",
)

EVERY = "*"
"""Stands for all functions that are not named."""

_SHIPPED = Path(__file__).parent / "profiles"
_INHERITED_MAX = 8


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage of an operation, and where its constants come from."""

    name: str
    fixed_s: float = 0.0
    bytes_of: BytesOf = "none"
    fixed_bytes: int = 0
    link: str = "none"
    """Paths joined by `+`, see `inferx.sim.device.PATHS`; all are crossed at once."""
    cap_bytes_per_s: int = 0
    """What software reaches at best; 0 leaves it to the links."""
    jitter_cv: float = 0.0
    overlap: bool = False
    only_from: Literal["", "REMOTE", "NVME", "DRAM"] = ""
    """The source tier for which the stage exists; empty for all."""
    needs_gpus: bool = False
    """Leave the stage out for a pod without GPUs; those on `pcie` always are."""
    untold: bool = False
    """It takes time, but is no phase that the node tells of: a scheduler does not learn from it."""
    basis: Basis
    source: str
    machine: str
    date: str

    def __post_init__(self) -> None:
        """Refuse what no stage can be; the message reaches the user with its key path."""
        if not all((self.name, self.source, self.machine, self.date)):
            raise ValueError("name, source, machine and date must not be empty")
        if not 0 <= self.fixed_s < math.inf or not 0 <= self.jitter_cv < math.inf:
            raise ValueError("fixed_s and jitter_cv must be finite and not negative")
        if self.fixed_bytes < 0 or self.cap_bytes_per_s < 0:
            raise ValueError("fixed_bytes and cap_bytes_per_s must not be negative")
        for path in self.paths:
            if path not in PATHS:
                raise ValueError(f"link {path!r}, expected `none` or some of {', '.join(PATHS)}")
        moves = self.bytes_of != "none" or self.fixed_bytes > 0
        if moves and not self.paths and not self.cap_bytes_per_s:
            raise ValueError("it moves bytes, so link or cap_bytes_per_s is needed")

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the paths that the stage's bytes cross."""
        return () if self.link == "none" else tuple(self.link.split("+"))

    def size_bytes(self, function: FunctionSpec) -> int:
        """Return how many bytes the stage moves for one pod of a function."""
        match self.bytes_of:
            case "none":
                return self.fixed_bytes
            case "weights":
                return self.fixed_bytes + function.weight_bytes
            case "device":
                return self.fixed_bytes + function.device_bytes
            case "host":
                return self.fixed_bytes + function.host_bytes
            case "snapshot":
                return self.fixed_bytes + function.snapshot_bytes
            case _:
                assert_never(self.bytes_of)


class _Interference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By what share of its speed alone one busy neighbour slows a pod."""

    per_neighbour: float
    basis: Basis
    source: str
    machine: str
    date: str

    def __post_init__(self) -> None:
        """Refuse a neighbour that speeds others up."""
        if not 0 <= self.per_neighbour < math.inf:
            raise ValueError("per_neighbour must be finite and not negative")


class _Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast pods of a function serve tokens, where that was measured or declared."""

    prefill_tokens_per_s: float
    decode_base_s: float
    decode_per_request_s: float = 0.0
    basis: Basis
    source: str
    machine: str
    date: str

    def __post_init__(self) -> None:
        """Refuse a pod that never ends, and one that takes no time."""
        if not 0 < self.prefill_tokens_per_s < math.inf:
            raise ValueError("prefill_tokens_per_s must be finite and more than 0")
        if not (0 < self.decode_base_s < math.inf and 0 <= self.decode_per_request_s < math.inf):
            raise ValueError("decode_base_s must be finite and more than 0, per request at least 0")

    def speed(self) -> ServingSpec:
        """Return it in the units of the serving model."""
        return ServingSpec(
            prefill_tokens_per_s=max(1, round(self.prefill_tokens_per_s)),
            decode_base_ns=max(1, round(self.decode_base_s * NS_PER_S)),
            decode_per_request_ns=round(self.decode_per_request_s * NS_PER_S),
        )


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A profile file as it is written; an operation given replaces the inherited one whole."""

    name: str
    summary: str
    inherits: str = ""
    cold: tuple[Stage, ...] | None = None
    restore: tuple[Stage, ...] | None = None
    resume: tuple[Stage, ...] | None = None
    suspend: tuple[Stage, ...] | None = None
    snapshot: tuple[Stage, ...] | None = None
    copy_in: tuple[Stage, ...] | None = None
    copy_out: tuple[Stage, ...] | None = None
    stop: tuple[Stage, ...] | None = None
    interference: dict[str, _Interference] = {}
    serving: dict[str, _Serving] = {}


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to start pods, with its times."""

    name: str
    summary: str
    operations: dict[Operation, tuple[Stage, ...]]
    per_neighbour: dict[str, float]
    speeds: dict[str, ServingSpec] = field(default_factory=dict[str, ServingSpec])
    """How fast functions serve, by name; `*` is every other one."""

    def offers(self, operation: Operation) -> bool:
        """Say whether this way of starting pods knows the operation."""
        return operation in self.operations

    def interference(self, enforcement: str) -> float:
        """Return by what share one busy neighbour slows a slice that is so enforced."""
        factor = self.per_neighbour.get(enforcement)
        if factor is None:
            raise DescriptionError(
                f"profile {self.name}: no interference for {enforcement!r},"
                f" expected one of {', '.join(self.per_neighbour)}"
            )
        return factor

    def speed(self, function: str) -> ServingSpec | None:
        """Return how fast pods of a function serve tokens; None derives it from size and GPU."""
        return self.speeds.get(function) or self.speeds.get(EVERY)

    def run(
        self,
        operation: Operation,
        function: FunctionSpec,
        devices: NodeDevices,
        *,
        gpus: Sequence[int],
        source: Tier,
        rng: Generator | None,
        done: Callable[[tuple[PhaseTiming, ...]], object],
    ) -> Run:
        """Begin an operation of one pod; `done(phases)` is called at its end, never at once.

        Args:
            operation: One that the profile offers.
            function: The pod's function.
            devices: The pod's node.
            gpus: The pod's GPUs, counted from 0 on the node.
            source: Where a start reads from: REMOTE, NVME or DRAM; ABSENT for what reads nothing.
            rng: Draws the jitter; None for none.
            done: Called with the time and bytes of each stage, in the stages' order.

        Raises:
            DescriptionError: The profile does not offer it, or a link that it needs is absent.
        """
        return Run(devices, self._steps(operation, function, devices, gpus, source, rng), done)

    def estimate_ns(
        self,
        operation: Operation,
        function: FunctionSpec,
        devices: NodeDevices,
        *,
        gpus: Sequence[int],
        source: Tier,
    ) -> int:
        """Return the time of an operation on an idle node, without jitter.

        Overlapping stages count as if they did not share a link. Raises: see `run`.
        """
        return _alone_ns(self._steps(operation, function, devices, gpus, source, None))

    def least_ns(
        self,
        operation: Operation,
        function: FunctionSpec,
        devices: NodeDevices,
        *,
        gpus: Sequence[int],
        source: Tier,
    ) -> int:
        """Return what an operation takes at least, but for one draw of jitter in a billion.

        On an idle node, each stage's jitter six standard deviations below its mean; otherwise as
        `estimate_ns`.
        """
        return _alone_ns(self._steps(operation, function, devices, gpus, source, -6.0))

    def _steps(
        self,
        operation: Operation,
        function: FunctionSpec,
        devices: NodeDevices,
        gpus: Sequence[int],
        source: Tier,
        rng: Generator | float | None,
    ) -> list[Step]:
        stages = self.operations.get(operation)
        if stages is None:
            raise DescriptionError(
                f"profile {self.name}: no {operation}, expected one of {', '.join(self.operations)}"
            )
        steps: list[Step] = []
        for stage in stages:
            stretch = _stretch(stage.jitter_cv, rng)
            on_gpus = "pcie" in stage.paths
            if (on_gpus or stage.needs_gpus) and not gpus:
                continue
            if stage.only_from not in {"", source.name}:
                continue
            size_bytes = stage.size_bytes(function)
            ways = [
                tuple(
                    link
                    for name in stage.paths
                    for link in devices.path(name, source=source, gpu=gpu)
                )
                for gpu in (gpus if on_gpus else (0,))
            ]
            share, rest = divmod(size_bytes, len(ways))
            parts = tuple((way, share + (row < rest)) for row, way in enumerate(ways))
            cap = int(stage.cap_bytes_per_s / stretch) if stage.cap_bytes_per_s else UNCAPPED
            steps.append(
                Step(
                    name=stage.name,
                    delay_ns=round(stage.fixed_s * stretch * NS_PER_S),
                    cap_bytes_per_s=max(1, cap),
                    parts=parts if size_bytes else (),
                    overlap=stage.overlap,
                    told=not stage.untold,
                )
            )
        return steps


def profile_names() -> list[str]:
    """Return the names of the shipped profiles, in order."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name, or a file by a path that ends in `.toml`.

    Raises:
        DescriptionError: It cannot be used as it is; one line says where and why.
    """
    chain: list[_Document] = []
    wanted = name_or_path
    while wanted or not chain:
        if len(chain) == _INHERITED_MAX:
            raise DescriptionError(
                f"{name_or_path}: inherits more than {_INHERITED_MAX} deep, expected an end"
            )
        chain.append(_read(wanted))
        wanted = chain[-1].inherits
    operations: dict[Operation, tuple[Stage, ...]] = {}
    for operation in OPERATIONS:
        given = next((s for d in chain if (s := getattr(d, operation)) is not None), None)
        if given is not None:
            operations[operation] = given
    for needed in ("cold", "stop"):
        if needed not in operations:
            raise DescriptionError(f"{name_or_path}: no {needed}, every profile needs one")
    per_neighbour = {
        enforcement: row.per_neighbour
        for document in reversed(chain)
        for enforcement, row in document.interference.items()
    }
    speeds = {
        function: row.speed()
        for document in reversed(chain)
        for function, row in document.serving.items()
    }
    return Profile(chain[0].name, chain[0].summary, operations, per_neighbour, speeds)


def _read(name_or_path: str) -> _Document:
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _SHIPPED / f"{name_or_path}.toml"
        if not path.is_file():
            raise DescriptionError(
                f"profile {name_or_path or repr('')}: unknown, expected a .toml file or one of"
                f" {', '.join(profile_names())}"
            )
    expected = "expected a profile as docs/profiles.md tells"
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise DescriptionError(f"{path}: {what}; {expected}")
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _Document)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DescriptionError(f"{path}: {reason}; {expected}") from error


def _alone_ns(steps: Sequence[Step]) -> int:
    total_ns = beside_ns = 0
    for step in steps:
        beside_ns = max(beside_ns, step.unloaded_ns())
        if not step.overlap:
            total_ns += beside_ns
            beside_ns = 0
    return total_ns + beside_ns


def _stretch(cv: float, rng: Generator | float | None) -> float:
    """Draw a lognormal factor with mean 1 and coefficient of variation `cv`.

    A number stands for a draw: so many standard deviations from the logarithm's mean.
    """
    if rng is None or cv == 0.0:
        return 1.0
    variance = math.log1p(cv * cv)
    draw = float(rng.standard_normal()) if isinstance(rng, Generator) else rng
    return math.exp(math.sqrt(variance) * draw - variance / 2)
