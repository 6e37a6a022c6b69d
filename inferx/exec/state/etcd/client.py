"""What is peculiar to etcd's v3 API: its methods, its users, its errors."""

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
import msgspec

from inferx.exec.state.etcd import etcd_pb2 as pb
from inferx.exec.state.members import DEADLINE_S, Members
from inferx.exec.state.rpc import A, Metadata, Method, Q, ask, ask_stream, said
from inferx.exec.state.store import LeaseLostError, StoreError, TooOldError, UnavailableError

__all__ = [
    "LEASE_GRANT",
    "LEASE_REVOKE",
    "RANGE",
    "STATUS",
    "TXN",
    "WATCH",
    "AnswerTooLargeError",
    "Client",
    "Login",
]

LOGIN_S = 2.0
"""How long etcd is given to hash a password."""

RANGE = Method("etcdserverpb.KV", "Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("etcdserverpb.KV", "Txn", pb.TxnRequest, pb.TxnResponse)
WATCH = Method("etcdserverpb.Watch", "Watch", pb.WatchRequest, pb.WatchResponse)
LEASE_GRANT = Method(
    "etcdserverpb.Lease", "LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse
)
LEASE_REVOKE = Method("etcdserverpb.Lease", "LeaseRevoke", pb.LeaseRequest, pb.LeaseRevokeResponse)
KEEP_ALIVE = Method(
    "etcdserverpb.Lease", "LeaseKeepAlive", pb.LeaseRequest, pb.LeaseKeepAliveResponse
)
AUTHENTICATE = Method(
    "etcdserverpb.Auth", "Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse
)
STATUS = Method("etcdserverpb.Maintenance", "Status", pb.StatusRequest, pb.StatusResponse)


class Login(msgspec.Struct, frozen=True):
    """A user of etcd's."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


class AnswerTooLargeError(StoreError):
    """More came than is taken at once: ask for less."""


class Client:
    """A user of one cluster of etcd.

    Attributes:
        members: The connections.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None = None,
        login: Login | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Connect when the first call is made.

        Args:
            endpoints: `host:port` of members, at least one.
            credentials: None: in the clear.
            login: None: without a user.
            deadline_s: Of a call, all its attempts together.
        """
        self.members = Members("etcd", endpoints, credentials, deadline_s=deadline_s)
        self._login = login
        self._token = ""

    async def call(self, method: Method[Q, A], request: Q, *, repeat: bool = True) -> A:
        """Call a method and wait for its answer; `repeat`: it is harmless to do it twice."""
        return await self.members.call(self, method, request, ask, repeat=repeat)

    async def keep_alive(self, lease: int) -> int:
        """Begin a lease's time anew; return it in seconds, 0 if the lease is no more."""
        request = pb.LeaseRequest(ID=lease)
        return (await self.members.call(self, KEEP_ALIVE, request, ask_stream)).TTL

    async def metadata(self, channel: Any) -> Metadata:
        """Return what goes with every call: who we are, and that there must be a leader."""
        if self._login and not self._token:
            who = pb.AuthenticateRequest(name=self._login.user, password=self._login.password)
            reply = await ask(channel, AUTHENTICATE, who, LOGIN_S, ())
            self._token = reply.token
        leader = (("hasleader", "true"),)
        return (*leader, ("token", self._token)) if self._token else leader

    def left_undone(self, error: grpc.RpcError) -> bool:
        """Whether a member refused before it looked; a token that is no longer good is dropped."""
        words = said(error)
        if self._login and "invalid auth token" in words:
            self._token = ""
            return True
        return words == "etcdserver: no leader"

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Tell a gRPC error in our words: the one place that knows status codes."""
        status: Any = error
        words = said(error)
        match status.code():
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                raise UnavailableError(f"{self.members.name}: {words}") from error
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                raise UnavailableError(f"{self.members.name} did not answer in time") from error
            case grpc.StatusCode.OUT_OF_RANGE:
                raise TooOldError(f"{self.members.name}: {words}: list again") from error
            case grpc.StatusCode.NOT_FOUND if "lease" in words:
                raise LeaseLostError(f"{self.members.name}: {words}") from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED if not words.startswith("etcdserver"):
                raise AnswerTooLargeError(f"{self.members.name}: {words}") from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "too many requests" in words:
                raise UnavailableError(f"{self.members.name}: {words}") from error
            case _:
                raise StoreError(f"{self.members.name}: {words}") from error
