"""Entries as etcd has them."""

from inferx.exec.state.etcd import etcd_pb2 as pb
from inferx.exec.state.store import Entry, StoreLeaseId

__all__ = ["entry"]


def entry(kv: pb.KeyValue) -> Entry:
    """Return what etcd has under a key; a key that is not UTF-8 is not one of ours."""
    key = kv.key.decode(errors="backslashreplace")
    return Entry(key, kv.value, kv.mod_revision, StoreLeaseId(kv.lease))
