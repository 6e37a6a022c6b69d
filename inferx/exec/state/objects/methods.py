"""The methods of the objects' service, for both of its ends."""

from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.rpc import Method

__all__ = [
    "APPLY",
    "CREATE",
    "DELETE",
    "GET",
    "LIST",
    "SERVICE",
    "UID",
    "UPDATE",
    "VERSION",
    "WATCH",
]

SERVICE = "inferx.objects.v1.Objects"

VERSION = Method(SERVICE, "Version", pb.VersionRequest, pb.VersionReply)
UID = Method(SERVICE, "Uid", pb.UidRequest, pb.UidReply)
GET = Method(SERVICE, "Get", pb.GetRequest, pb.Object)
LIST = Method(SERVICE, "List", pb.ListRequest, pb.ListPart)
WATCH = Method(SERVICE, "Watch", pb.WatchRequest, pb.Batch)
CREATE = Method(SERVICE, "Create", pb.WriteRequest, pb.Object)
UPDATE = Method(SERVICE, "Update", pb.UpdateRequest, pb.Object)
APPLY = Method(SERVICE, "Apply", pb.WriteRequest, pb.ApplyReply)
DELETE = Method(SERVICE, "Delete", pb.DeleteRequest, pb.Object)
