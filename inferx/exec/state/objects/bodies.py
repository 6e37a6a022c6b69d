"""What objects say, except functions and their policies: fields, ranges, defaults.

The names are the reference's. A status is set by administrators and services, never by an author.
"""

from typing import Annotated, Literal

import msgspec

__all__ = [
    "Counter",
    "FunctionStatus",
    "Gateway",
    "Limits",
    "Namespace",
    "NamespaceSpec",
    "NamespaceStatus",
    "NodeInfo",
    "Port",
    "Scheduler",
    "Tenant",
    "TenantSpec",
    "TenantStatus",
]

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Counter = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant's functions and policies may ask for, and its requests at each gateway.

    The reference has two sets of defaults, for a tenant whose `limit` says something and for one
    that has none; these are the first. It has no limits of requests; 0 is none.

    Attributes:
        max_requests_per_s: Begun, on average.
        max_tokens_per_s: Input and output together, on average.
        max_concurrency: Requests at once, waiting ones included.
        burst_s: How many seconds' worth may come at once after a quiet time.
    """

    max_funccount: Count = 10
    allow_mem_standby: bool = False
    min_replica_cap: Count = 0
    max_gpu: Count = 4
    max_replica: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2
    max_standby: Count = 1
    max_queue_len: Count = 100
    max_requests_per_s: Count = 0
    max_tokens_per_s: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 0
    max_concurrency: Count = 0
    burst_s: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 10


class TenantSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator grants a tenant."""

    limit: Limits = Limits()
    quota_exempt: bool = False


class TenantStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a tenant is served."""

    disable: bool = False
    quota_exceeded: bool = False


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `tenant`."""

    spec: TenantSpec = TenantSpec()
    status: TenantStatus = TenantStatus()


class NamespaceSpec(msgspec.Struct, frozen=True):
    """Nothing can be said of a namespace but its name, yet."""


class NamespaceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a namespace takes new objects."""

    disable: bool = False


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `namespace`."""

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class FunctionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `funcstatus`: how one version of the function of the same name has fared."""

    version: Counter
    published: bool = False
    state: Literal["Normal", "Fail"] = "Normal"
    snapshotingFailureCnt: Counter = 0  # noqa: N815 the reference's spelling, all through here
    resumingFailureCnt: Counter = 0  # noqa: N815


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `node_info`: where a node's agent is reached, and since which start."""

    nodeEpoch: Counter  # noqa: N815
    nodeIp: str  # noqa: N815
    naIp: str = ""  # noqa: N815
    cidr: str = ""
    podMgrPort: Port = 1233  # noqa: N815
    tsotSvcPort: Port = 1235  # noqa: N815
    stateSvcPort: Port = 1236  # noqa: N815
    blobStoreEnable: bool = False  # noqa: N815
    CUDA_VISIBLE_DEVICES: str = ""
    state: Literal["NodeProxyAvailable", "NodeAgentConnected", "NodeAgentReady"] = (
        "NodeProxyAvailable"
    )
    resources: dict[str, object] = {}


class Scheduler(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the `scheduler`: who leads, since which election, and where."""

    address: str
    epoch: Counter


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a `gateway`: where it is reached, and its number."""

    address: str
    id: Counter
