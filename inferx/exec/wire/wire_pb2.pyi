from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABSENT: _ClassVar[Tier]
    REMOTE: _ClassVar[Tier]
    NVME: _ClassVar[Tier]
    DRAM: _ClassVar[Tier]
    HBM: _ClassVar[Tier]
ABSENT: Tier
REMOTE: Tier
NVME: Tier
DRAM: Tier
HBM: Tier

class Create(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ...) -> None: ...

class Restore(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus", "source", "keep")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    source: Tier
    keep: bool
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ..., source: _Optional[_Union[Tier, str]] = ..., keep: _Optional[bool] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ...) -> None: ...

class Suspend(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus", "leave")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    leave: bool
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ..., leave: _Optional[bool] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "function", "gpus")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ...) -> None: ...

class Copy(_message.Message):
    __slots__ = ("epoch", "sequence", "function", "source", "target")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    function: str
    source: Tier
    target: Tier
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., function: _Optional[str] = ..., source: _Optional[_Union[Tier, str]] = ..., target: _Optional[_Union[Tier, str]] = ...) -> None: ...

class Drop(_message.Message):
    __slots__ = ("epoch", "sequence", "function", "tier")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    function: str
    tier: Tier
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., function: _Optional[str] = ..., tier: _Optional[_Union[Tier, str]] = ...) -> None: ...

class PhaseTiming(_message.Message):
    __slots__ = ("phase", "duration_ns", "moved_bytes")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    phase: str
    duration_ns: int
    moved_bytes: int
    def __init__(self, phase: _Optional[str] = ..., duration_ns: _Optional[int] = ..., moved_bytes: _Optional[int] = ...) -> None: ...

class PodReady(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "phases")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTiming]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseTiming, _Mapping]]] = ...) -> None: ...

class PodSuspended(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "phases")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTiming]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseTiming, _Mapping]]] = ...) -> None: ...

class PodGone(_message.Message):
    __slots__ = ("epoch", "sequence", "pod")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ...) -> None: ...

class PodFailed(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class PodStuck(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SnapshotTaken(_message.Message):
    __slots__ = ("epoch", "sequence", "pod", "left", "phases")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    pod: int
    left: bool
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTiming]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., pod: _Optional[int] = ..., left: _Optional[bool] = ..., phases: _Optional[_Iterable[_Union[PhaseTiming, _Mapping]]] = ...) -> None: ...

class SnapshotCopied(_message.Message):
    __slots__ = ("epoch", "sequence", "function", "target", "ok")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    function: str
    target: Tier
    ok: bool
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., function: _Optional[str] = ..., target: _Optional[_Union[Tier, str]] = ..., ok: _Optional[bool] = ...) -> None: ...

class SnapshotDropped(_message.Message):
    __slots__ = ("epoch", "sequence", "function", "tier", "ok")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    function: str
    tier: Tier
    ok: bool
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., function: _Optional[str] = ..., tier: _Optional[_Union[Tier, str]] = ..., ok: _Optional[bool] = ...) -> None: ...

class CommandAccepted(_message.Message):
    __slots__ = ("epoch", "sequence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class CommandRefused(_message.Message):
    __slots__ = ("epoch", "sequence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class FoundPod(_message.Message):
    __slots__ = ("pod", "function", "gpus", "state")
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    pod: int
    function: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    state: str
    def __init__(self, pod: _Optional[int] = ..., function: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ..., state: _Optional[str] = ...) -> None: ...

class NodeJoined(_message.Message):
    __slots__ = ("boot", "pods", "snapshots", "remote")
    BOOT_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    boot: int
    pods: _containers.RepeatedCompositeFieldContainer[FoundPod]
    snapshots: _containers.RepeatedScalarFieldContainer[str]
    remote: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, boot: _Optional[int] = ..., pods: _Optional[_Iterable[_Union[FoundPod, _Mapping]]] = ..., snapshots: _Optional[_Iterable[str]] = ..., remote: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeDraining(_message.Message):
    __slots__ = ("until_ns",)
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    until_ns: int
    def __init__(self, until_ns: _Optional[int] = ...) -> None: ...

class PodFound(_message.Message):
    __slots__ = ("pod", "state")
    POD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    pod: int
    state: str
    def __init__(self, pod: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class Lead(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Deploy(_message.Message):
    __slots__ = ("function", "object")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    function: str
    object: bytes
    def __init__(self, function: _Optional[str] = ..., object: _Optional[bytes] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("number", "heard", "many")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    MANY_FIELD_NUMBER: _ClassVar[int]
    number: int
    heard: int
    many: bool
    def __init__(self, number: _Optional[int] = ..., heard: _Optional[int] = ..., many: _Optional[bool] = ...) -> None: ...

class Located(_message.Message):
    __slots__ = ("pod", "address")
    POD_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    pod: int
    address: str
    def __init__(self, pod: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class ToNode(_message.Message):
    __slots__ = ("lead", "beat", "deploy", "create", "restore", "resume", "suspend", "snapshot", "stop", "copy", "drop", "traceparent", "also")
    LEAD_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    DEPLOY_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SUSPEND_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    lead: Lead
    beat: Beat
    deploy: Deploy
    create: Create
    restore: Restore
    resume: Resume
    suspend: Suspend
    snapshot: Snapshot
    stop: Stop
    copy: Copy
    drop: Drop
    traceparent: str
    also: _containers.RepeatedCompositeFieldContainer[ToNode]
    def __init__(self, lead: _Optional[_Union[Lead, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., deploy: _Optional[_Union[Deploy, _Mapping]] = ..., create: _Optional[_Union[Create, _Mapping]] = ..., restore: _Optional[_Union[Restore, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., suspend: _Optional[_Union[Suspend, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., copy: _Optional[_Union[Copy, _Mapping]] = ..., drop: _Optional[_Union[Drop, _Mapping]] = ..., traceparent: _Optional[str] = ..., also: _Optional[_Iterable[_Union[ToNode, _Mapping]]] = ...) -> None: ...

class FromNode(_message.Message):
    __slots__ = ("beat", "located", "pod_ready", "pod_suspended", "pod_gone", "pod_failed", "snapshot_taken", "snapshot_copied", "snapshot_dropped", "command_accepted", "command_refused", "node_joined", "node_draining", "pod_found", "pod_stuck", "also")
    BEAT_FIELD_NUMBER: _ClassVar[int]
    LOCATED_FIELD_NUMBER: _ClassVar[int]
    POD_READY_FIELD_NUMBER: _ClassVar[int]
    POD_SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    POD_GONE_FIELD_NUMBER: _ClassVar[int]
    POD_FAILED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TAKEN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_COPIED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_DROPPED_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    COMMAND_REFUSED_FIELD_NUMBER: _ClassVar[int]
    NODE_JOINED_FIELD_NUMBER: _ClassVar[int]
    NODE_DRAINING_FIELD_NUMBER: _ClassVar[int]
    POD_FOUND_FIELD_NUMBER: _ClassVar[int]
    POD_STUCK_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    beat: Beat
    located: Located
    pod_ready: PodReady
    pod_suspended: PodSuspended
    pod_gone: PodGone
    pod_failed: PodFailed
    snapshot_taken: SnapshotTaken
    snapshot_copied: SnapshotCopied
    snapshot_dropped: SnapshotDropped
    command_accepted: CommandAccepted
    command_refused: CommandRefused
    node_joined: NodeJoined
    node_draining: NodeDraining
    pod_found: PodFound
    pod_stuck: PodStuck
    also: _containers.RepeatedCompositeFieldContainer[FromNode]
    def __init__(self, beat: _Optional[_Union[Beat, _Mapping]] = ..., located: _Optional[_Union[Located, _Mapping]] = ..., pod_ready: _Optional[_Union[PodReady, _Mapping]] = ..., pod_suspended: _Optional[_Union[PodSuspended, _Mapping]] = ..., pod_gone: _Optional[_Union[PodGone, _Mapping]] = ..., pod_failed: _Optional[_Union[PodFailed, _Mapping]] = ..., snapshot_taken: _Optional[_Union[SnapshotTaken, _Mapping]] = ..., snapshot_copied: _Optional[_Union[SnapshotCopied, _Mapping]] = ..., snapshot_dropped: _Optional[_Union[SnapshotDropped, _Mapping]] = ..., command_accepted: _Optional[_Union[CommandAccepted, _Mapping]] = ..., command_refused: _Optional[_Union[CommandRefused, _Mapping]] = ..., node_joined: _Optional[_Union[NodeJoined, _Mapping]] = ..., node_draining: _Optional[_Union[NodeDraining, _Mapping]] = ..., pod_found: _Optional[_Union[PodFound, _Mapping]] = ..., pod_stuck: _Optional[_Union[PodStuck, _Mapping]] = ..., also: _Optional[_Iterable[_Union[FromNode, _Mapping]]] = ...) -> None: ...

class AskLease(_message.Message):
    __slots__ = ("function", "slots", "inflight", "oldest_ns", "sequence")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    INFLIGHT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_NS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    function: str
    slots: int
    inflight: int
    oldest_ns: int
    sequence: int
    def __init__(self, function: _Optional[str] = ..., slots: _Optional[int] = ..., inflight: _Optional[int] = ..., oldest_ns: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class ReturnLease(_message.Message):
    __slots__ = ("lease", "pod", "failed")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    lease: int
    pod: int
    failed: bool
    def __init__(self, lease: _Optional[int] = ..., pod: _Optional[int] = ..., failed: _Optional[bool] = ...) -> None: ...

class ReportLoad(_message.Message):
    __slots__ = ("window_ns", "functions", "arrivals", "concurrency_milli", "queued")
    WINDOW_NS_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_MILLI_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    window_ns: int
    functions: _containers.RepeatedScalarFieldContainer[str]
    arrivals: _containers.RepeatedScalarFieldContainer[int]
    concurrency_milli: _containers.RepeatedScalarFieldContainer[int]
    queued: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, window_ns: _Optional[int] = ..., functions: _Optional[_Iterable[str]] = ..., arrivals: _Optional[_Iterable[int]] = ..., concurrency_milli: _Optional[_Iterable[int]] = ..., queued: _Optional[_Iterable[int]] = ...) -> None: ...

class HeldLease(_message.Message):
    __slots__ = ("lease", "pod", "function", "slots")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    pod: int
    function: str
    slots: int
    def __init__(self, lease: _Optional[int] = ..., pod: _Optional[int] = ..., function: _Optional[str] = ..., slots: _Optional[int] = ...) -> None: ...

class ReportLeases(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[HeldLease]
    def __init__(self, leases: _Optional[_Iterable[_Union[HeldLease, _Mapping]]] = ...) -> None: ...

class GrantLease(_message.Message):
    __slots__ = ("lease", "function", "pod", "slots", "cold")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    COLD_FIELD_NUMBER: _ClassVar[int]
    lease: int
    function: str
    pod: int
    slots: int
    cold: bool
    def __init__(self, lease: _Optional[int] = ..., function: _Optional[str] = ..., pod: _Optional[int] = ..., slots: _Optional[int] = ..., cold: _Optional[bool] = ...) -> None: ...

class RevokeLease(_message.Message):
    __slots__ = ("lease", "pod")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    lease: int
    pod: int
    def __init__(self, lease: _Optional[int] = ..., pod: _Optional[int] = ...) -> None: ...

class RecallLease(_message.Message):
    __slots__ = ("lease", "pod")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    lease: int
    pod: int
    def __init__(self, lease: _Optional[int] = ..., pod: _Optional[int] = ...) -> None: ...

class RefuseLease(_message.Message):
    __slots__ = ("function", "reason")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    function: str
    reason: str
    def __init__(self, function: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("gateway",)
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    def __init__(self, gateway: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class ToRouter(_message.Message):
    __slots__ = ("welcome", "beat", "located", "grant_lease", "revoke_lease", "recall_lease", "refuse_lease", "also")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    LOCATED_FIELD_NUMBER: _ClassVar[int]
    GRANT_LEASE_FIELD_NUMBER: _ClassVar[int]
    REVOKE_LEASE_FIELD_NUMBER: _ClassVar[int]
    RECALL_LEASE_FIELD_NUMBER: _ClassVar[int]
    REFUSE_LEASE_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    beat: Beat
    located: Located
    grant_lease: GrantLease
    revoke_lease: RevokeLease
    recall_lease: RecallLease
    refuse_lease: RefuseLease
    also: _containers.RepeatedCompositeFieldContainer[ToRouter]
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., located: _Optional[_Union[Located, _Mapping]] = ..., grant_lease: _Optional[_Union[GrantLease, _Mapping]] = ..., revoke_lease: _Optional[_Union[RevokeLease, _Mapping]] = ..., recall_lease: _Optional[_Union[RecallLease, _Mapping]] = ..., refuse_lease: _Optional[_Union[RefuseLease, _Mapping]] = ..., also: _Optional[_Iterable[_Union[ToRouter, _Mapping]]] = ...) -> None: ...

class FromRouter(_message.Message):
    __slots__ = ("hello", "beat", "report_leases", "ask_lease", "return_lease", "report_load", "traceparent", "also")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    REPORT_LEASES_FIELD_NUMBER: _ClassVar[int]
    ASK_LEASE_FIELD_NUMBER: _ClassVar[int]
    RETURN_LEASE_FIELD_NUMBER: _ClassVar[int]
    REPORT_LOAD_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    beat: Beat
    report_leases: ReportLeases
    ask_lease: AskLease
    return_lease: ReturnLease
    report_load: ReportLoad
    traceparent: str
    also: _containers.RepeatedCompositeFieldContainer[FromRouter]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., report_leases: _Optional[_Union[ReportLeases, _Mapping]] = ..., ask_lease: _Optional[_Union[AskLease, _Mapping]] = ..., return_lease: _Optional[_Union[ReturnLease, _Mapping]] = ..., report_load: _Optional[_Union[ReportLoad, _Mapping]] = ..., traceparent: _Optional[str] = ..., also: _Optional[_Iterable[_Union[FromRouter, _Mapping]]] = ...) -> None: ...

class ViewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ViewReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("function", "pod", "since_ns", "until_ns")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    function: str
    pod: int
    since_ns: int
    until_ns: int
    def __init__(self, function: _Optional[str] = ..., pod: _Optional[int] = ..., since_ns: _Optional[int] = ..., until_ns: _Optional[int] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "for_ns")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FOR_NS_FIELD_NUMBER: _ClassVar[int]
    node: str
    for_ns: int
    def __init__(self, node: _Optional[str] = ..., for_ns: _Optional[int] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndPodRequest(_message.Message):
    __slots__ = ("pod", "now")
    POD_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    pod: int
    now: bool
    def __init__(self, pod: _Optional[int] = ..., now: _Optional[bool] = ...) -> None: ...

class EndPodReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListLogsRequest(_message.Message):
    __slots__ = ("tenant", "namespace", "function")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    namespace: str
    function: str
    def __init__(self, tenant: _Optional[str] = ..., namespace: _Optional[str] = ..., function: _Optional[str] = ...) -> None: ...

class PodLog(_message.Message):
    __slots__ = ("pod", "function", "state", "held_bytes", "ended_ns")
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    pod: int
    function: str
    state: str
    held_bytes: int
    ended_ns: int
    def __init__(self, pod: _Optional[int] = ..., function: _Optional[str] = ..., state: _Optional[str] = ..., held_bytes: _Optional[int] = ..., ended_ns: _Optional[int] = ...) -> None: ...

class ListLogsReply(_message.Message):
    __slots__ = ("logs",)
    LOGS_FIELD_NUMBER: _ClassVar[int]
    logs: _containers.RepeatedCompositeFieldContainer[PodLog]
    def __init__(self, logs: _Optional[_Iterable[_Union[PodLog, _Mapping]]] = ...) -> None: ...

class ReadLogRequest(_message.Message):
    __slots__ = ("pod", "function", "lines", "follow", "stream")
    POD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    pod: int
    function: str
    lines: int
    follow: bool
    stream: str
    def __init__(self, pod: _Optional[int] = ..., function: _Optional[str] = ..., lines: _Optional[int] = ..., follow: _Optional[bool] = ..., stream: _Optional[str] = ...) -> None: ...

class LogPiece(_message.Message):
    __slots__ = ("stream", "text", "skipped_bytes")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stream: str
    text: bytes
    skipped_bytes: int
    def __init__(self, stream: _Optional[str] = ..., text: _Optional[bytes] = ..., skipped_bytes: _Optional[int] = ...) -> None: ...
