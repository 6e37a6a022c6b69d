"""Objects as protobuf messages, and back. Nothing else knows both."""

import msgspec

from inferx.core.errors import DescriptionError
from inferx.exec.state.objects.actor import Actor, Role
from inferx.exec.state.objects.envelope import NEW, DataObject, Key
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION, Applied, Batch, Outcome
from inferx.exec.state.objects.selector import Selection, parse_labels
from inferx.spec.document import is_table, parse_json, shown

__all__ = [
    "actor_from",
    "actor_to",
    "applied_from",
    "applied_to",
    "batch_from",
    "batch_to",
    "expected_from",
    "key_from",
    "key_to",
    "object_from",
    "object_to",
    "selection_from",
    "selection_to",
]


def key_to(key: Key) -> pb.Key:
    """Write a key."""
    return pb.Key(type=key.type, tenant=key.tenant, namespace=key.namespace, name=key.name)


def key_from(message: pb.Key) -> Key:
    """Read a key; whether something may be called so is another's to say."""
    return Key(message.type, message.tenant, message.namespace, message.name)


def object_to(one: DataObject) -> pb.Object:
    """Write an object."""
    return pb.Object(
        key=key_to(one.key),
        labels=one.labels,
        annotations=one.annotations,
        body=msgspec.json.encode(one.object).decode(),
        revision=one.revision,
    )


def object_from(message: pb.Object) -> DataObject:
    """Read an object, whose body is not looked at yet.

    Raises:
        DescriptionError: The body is no JSON table.
    """
    body = parse_json(message.body, "body").root
    if not is_table(body):
        raise DescriptionError(f"body: {shown(body)}; expected a table")
    key = key_from(message.key)
    return DataObject(
        type=key.type,
        tenant=key.tenant,
        namespace=key.namespace,
        name=key.name,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        object=body,
        revision=message.revision,
    )


def actor_to(who: Actor) -> pb.Actor:
    """Write on whose behalf something is asked."""
    return pb.Actor(role=_ROLES[who.role], tenant=who.tenant, namespace=who.namespace)


def actor_from(message: pb.Actor) -> Actor:
    """Read on whose behalf something is asked.

    Raises:
        DescriptionError: It is not said.
    """
    for role, number in _ROLES.items():
        if number == message.role:
            return Actor(role, message.tenant, message.namespace)
    raise DescriptionError(f"who: role {message.role}; expected one that is known")


def selection_to(selection: Selection) -> pb.Selection:
    """Write a selection."""
    return pb.Selection(
        type=selection.type,
        tenant=selection.tenant,
        namespace=selection.namespace,
        labels=",".join(map(str, selection.labels)),
    )


def selection_from(message: pb.Selection) -> Selection:
    """Read a selection.

    Raises:
        DescriptionError: Its labels are no selector, or it has a namespace and no tenant.
    """
    if message.namespace and not message.tenant:
        raise DescriptionError("selection: a namespace and no tenant; expected both")
    labels = parse_labels(message.labels)
    return Selection(message.type, message.tenant, message.namespace, labels)


def expected_from(message: pb.UpdateRequest) -> int:
    """Read the revision that an update expects.

    Raises:
        DescriptionError: None is said, nor that the update is forced.
    """
    if message.force:
        return ANY_REVISION
    if message.expected <= NEW:
        raise DescriptionError("expected: no revision; expected the one that was read, or force")
    return message.expected


def batch_to(batch: Batch) -> pb.Batch:
    """Write what a commit did."""
    changes = [
        pb.Change(deleted=key_to(change))
        if isinstance(change, Key)
        else pb.Change(put=object_to(change))
        for change in batch.changes
    ]
    return pb.Batch(revision=batch.revision, changes=changes)


def batch_from(message: pb.Batch) -> Batch:
    """Read what a commit did."""
    changes = tuple(
        object_from(change.put) if change.HasField("put") else key_from(change.deleted)
        for change in message.changes
    )
    return Batch(message.revision, changes)


def applied_to(applied: Applied) -> pb.ApplyReply:
    """Write what became of an apply."""
    return pb.ApplyReply(object=object_to(applied.object), outcome=_OUTCOMES[applied.outcome])


def applied_from(message: pb.ApplyReply) -> Applied:
    """Read what became of an apply."""
    outcome = next(one for one, number in _OUTCOMES.items() if number == message.outcome)
    return Applied(object_from(message.object), outcome)


_ROLES = {
    Role.SYSTEM: pb.Actor.ROLE_SYSTEM,
    Role.ADMIN: pb.Actor.ROLE_ADMIN,
    Role.TENANT_ADMIN: pb.Actor.ROLE_TENANT_ADMIN,
    Role.NAMESPACE_ADMIN: pb.Actor.ROLE_NAMESPACE_ADMIN,
}
_OUTCOMES = {
    Outcome.CREATED: pb.ApplyReply.OUTCOME_CREATED,
    Outcome.UPDATED: pb.ApplyReply.OUTCOME_UPDATED,
    Outcome.UNCHANGED: pb.ApplyReply.OUTCOME_UNCHANGED,
}
