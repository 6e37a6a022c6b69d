"""Calls to containerd: a channel, a namespace, a deadline on each call, errors in one line."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.ports import AgentError

__all__ = ["Client", "Conversation", "Refused", "packed"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

ERROR_CHARACTERS = 400
"""Of what containerd says: it nests the errors of its runtimes, which may quote whole logs."""


class Refused(AgentError):  # noqa: N818 - an answer, which callers expect and act on.
    """An error that containerd answered with.

    Attributes:
        code: Name of the gRPC status: `NOT_FOUND`, `ALREADY_EXISTS`, ...
    """

    def __init__(self, message: str, *, phase: str, code: str) -> None:
        super().__init__(message, phase=phase)
        self.code = code


class Call(Generic[Q, A]):
    """One method of containerd's API."""

    __slots__ = ("answer", "path")

    def __init__(self, service: str, method: str, request: type[Q], answer: type[A]) -> None:
        del request  # Only its type is wanted.
        self.path = f"/containerd.services.{service}/{method}"
        self.answer = answer


VERSION = Call("version.v1.Version", "Version", pb.Empty, pb.VersionResponse)

GET_CONTAINER = Call("containers.v1.Containers", "Get", pb.ContainerRequest, pb.ContainerMessage)
LIST_CONTAINERS = Call(
    "containers.v1.Containers", "List", pb.ListContainersRequest, pb.ListContainersResponse
)
CREATE_CONTAINER = Call(
    "containers.v1.Containers", "Create", pb.ContainerMessage, pb.ContainerMessage
)
DELETE_CONTAINER = Call("containers.v1.Containers", "Delete", pb.ContainerRequest, pb.Empty)

CREATE_TASK = Call("tasks.v1.Tasks", "Create", pb.CreateTaskRequest, pb.CreateTaskResponse)
START_TASK = Call("tasks.v1.Tasks", "Start", pb.TaskRequest, pb.StartResponse)
GET_TASK = Call("tasks.v1.Tasks", "Get", pb.TaskRequest, pb.GetTaskResponse)
LIST_TASKS = Call("tasks.v1.Tasks", "List", pb.ListTasksRequest, pb.ListTasksResponse)
KILL_TASK = Call("tasks.v1.Tasks", "Kill", pb.KillRequest, pb.Empty)
DELETE_TASK = Call("tasks.v1.Tasks", "Delete", pb.TaskRequest, pb.DeleteTaskResponse)
PAUSE_TASK = Call("tasks.v1.Tasks", "Pause", pb.TaskRequest, pb.Empty)
RESUME_TASK = Call("tasks.v1.Tasks", "Resume", pb.TaskRequest, pb.Empty)
CHECKPOINT_TASK = Call("tasks.v1.Tasks", "Checkpoint", pb.CheckpointTaskRequest, pb.Empty)

GET_IMAGE = Call("images.v1.Images", "Get", pb.GetImageRequest, pb.GetImageResponse)
READ_CONTENT = Call("content.v1.Content", "Read", pb.ReadContentRequest, pb.ReadContentResponse)

PREPARE_SNAPSHOT = Call(
    "snapshots.v1.Snapshots", "Prepare", pb.PrepareSnapshotRequest, pb.PrepareSnapshotResponse
)
TRANSFER = Call("transfer.v1.Transfer", "Transfer", pb.TransferRequest, pb.Empty)

STREAM = Call("streaming.v1.Streaming", "Stream", pb.Any, pb.Any)

REMOVE_SNAPSHOT = Call("snapshots.v1.Snapshots", "Remove", pb.SnapshotRequest, pb.Empty)


def packed(type_url: str, message: Message) -> pb.Any:
    """Return a message as containerd takes those of another module: with its name there."""
    return pb.Any(type_url=type_url, value=message.SerializeToString())


class Conversation(Generic[A]):
    """What containerd says on a stream that both speak on, one message after the other."""

    def __init__(self, said: Any, told: Callable[[grpc.RpcError], Refused]) -> None:
        self._said = said
        self._told = told

    def __iter__(self) -> Iterator[A]:
        return self

    def __next__(self) -> A:
        try:
            word: A = next(self._said)
        except grpc.RpcError as error:
            raise self._told(error) from error
        return word

    def close(self) -> None:
        """End it; whoever waits for a word gets an error."""
        self._said.cancel()


class Client:
    """A connection to one containerd, in one of its namespaces. Safe to share between threads."""

    def __init__(self, socket: str, namespace: str, *, deadline_s: float = 10.0) -> None:
        """Connect when the first call is made.

        Args:
            socket: Path of containerd's socket.
            namespace: Of containerd: what is not in it is neither seen nor touched.
            deadline_s: Of a call that says nothing else.
        """
        self.socket = socket
        self.namespace = namespace
        self._deadline_s = deadline_s
        # A socket that was not there a moment ago is tried again soon: containerd was restarted.
        self._channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=(
                ("grpc.max_reconnect_backoff_ms", 500),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.use_local_subchannel_pool", 1),
            ),
        )
        self._metadata = (("containerd-namespace", namespace),)

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._channel.close()

    def call(
        self, method: Call[Q, A], request: Q, *, phase: str, deadline_s: float | None = None
    ) -> A:
        """Call a method and wait for its answer.

        Raises:
            Refused: Any error, in one line.
        """
        stub: Callable[..., A] = self._channel.unary_unary(
            method.path,
            request_serializer=_bytes_of,
            response_deserializer=method.answer.FromString,
        )
        try:
            return stub(request, timeout=deadline_s or self._deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._refused(method.path, error, phase) from error

    def converse(
        self, method: Call[Q, A], words: Iterator[Q], *, phase: str, deadline_s: float
    ) -> Conversation[A]:
        """Open a stream on which `words` are said, as they come, and others are heard."""
        stub: Callable[..., Any] = self._channel.stream_stream(
            method.path,
            request_serializer=_bytes_of,
            response_deserializer=method.answer.FromString,
        )
        said = stub(words, timeout=deadline_s, metadata=self._metadata)
        return Conversation(said, lambda error: self._refused(method.path, error, phase))

    def read(self, digest: str, *, phase: str, limit: int) -> bytes:
        """Return a blob of containerd's content store.

        Raises:
            Refused: It is not there.
            AgentError: It is larger than `limit` bytes.
        """
        stub: Callable[..., Iterator[pb.ReadContentResponse]] = self._channel.unary_stream(
            READ_CONTENT.path,
            request_serializer=_bytes_of,
            response_deserializer=pb.ReadContentResponse.FromString,
        )
        blob = bytearray()
        try:
            for part in stub(
                pb.ReadContentRequest(digest=digest),
                timeout=self._deadline_s,
                metadata=self._metadata,
            ):
                blob += part.data
                if len(blob) > limit:
                    raise AgentError(
                        f"containerd: {digest} is larger than {limit} bytes", phase=phase
                    )
        except grpc.RpcError as error:
            raise self._refused(READ_CONTENT.path, error, phase) from error
        return bytes(blob)

    def _refused(self, path: str, error: grpc.RpcError, phase: str) -> Refused:
        """Tell a gRPC error in our words: the one place that knows status codes."""
        status: Any = error
        code: str = status.code().name
        said = " ".join(str(status.details() or "").split())
        if len(said) > ERROR_CHARACTERS:
            said = f"{said[:ERROR_CHARACTERS]}..."
        method = path.rpartition("/")[2]
        match code:
            case "UNAVAILABLE":
                message = f"containerd does not answer at {self.socket}: {said}"
            case "DEADLINE_EXCEEDED":
                message = f"containerd: {method} did not end in time"
            # The same, where containerd noticed first.
            case _ if said.startswith("context deadline exceeded"):
                message = f"containerd: {method} did not end in time"
            case _:
                message = f"containerd: {method}: {said or code}"
        return Refused(message, phase=phase, code=code)


def _bytes_of(message: Message) -> bytes:
    written: bytes = message.SerializeToString()
    return written
