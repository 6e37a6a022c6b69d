"""Whether an object may be written as it is asked: rights, places, limits, children.

All that is read here is read within one turn of the tenant, and so still holds when the turn's
commit is made; see `ledger`. Rights come first: who may not write learns nothing of what there is.
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.bodies import FunctionStatus, Limits, Namespace, Tenant
from inferx.exec.state.objects.envelope import (
    SYSTEM_NAME,
    Body,
    DataObject,
    Key,
    decode,
    encode,
)
from inferx.exec.state.objects.errors import AdmissionError, ForbiddenError, LimitError
from inferx.exec.state.objects.kinds import KINDS
from inferx.exec.state.objects.ledger import Counts, Ledger
from inferx.exec.state.objects.limits import check_function, check_policy
from inferx.exec.state.objects.rights import check_rights
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.objects.stated import link_of
from inferx.exec.state.store import (
    ABSENT,
    NO_LEASE,
    Change,
    Delete,
    Entry,
    Expect,
    Put,
    Store,
    StoreLeaseId,
)

__all__ = ["Plan", "Turn", "admit", "turn_of", "version_of"]


class Plan(msgspec.Struct, frozen=True):
    """The commit that does what was asked. No changes: there is nothing to do."""

    changes: Sequence[Change]
    expects: Sequence[Expect] = ()


class Turn(msgspec.Struct, frozen=True):
    """What admission reads from, between the reading of a ledger and the commit.

    Attributes:
        ledger: None for objects that belong to no tenant.
        lease: What the object is to be put under.
    """

    store: Store
    ledger: Ledger | None
    lease: StoreLeaseId = NO_LEASE

    async def get(self, key: Key) -> DataObject | None:
        """Return an object, or None."""
        entry = await self.store.get(key.path)
        return None if entry is None else decode(entry)


def turn_of(key: Key) -> str | None:
    """Return the tenant whose turn it takes to write an object; None if it takes none."""
    if key.type == "tenant":
        return key.name
    return None if KINDS[key.type].is_services else key.tenant


def version_of(function: DataObject) -> int:
    """Return the version of a stored function."""
    version = _spec(function).get("version", 0)
    assert isinstance(version, int)
    return version


async def admit(turn: Turn, who: Actor, old: DataObject | None, new: DataObject | None) -> Plan:
    """Return the commit that replaces `old` by `new`; None is no object.

    Raises:
        ForbiddenError: Whoever asks may not do this.
        LimitError: A limit of the tenant is against it.
        AdmissionError: The state of other objects is.
    """
    one = new or old
    assert one is not None
    check_rights(who, one.key)
    match one.type:
        case "tenant":
            return _tenant(turn, who, old, new)
        case "namespace":
            return await _namespace(turn, who, old, new)
        case "function":
            return await _function(turn, old, new)
        case "funcpolicy":
            return await _policy(turn, old, new)
        case "funcstatus":
            return await _status(turn, old, new)
        case _:
            return _write(turn, old, new)


def _tenant(turn: Turn, who: Actor, old: DataObject | None, new: DataObject | None) -> Plan:
    ledger = _ledger(turn)
    if not who.is_admin and not (old and new and old.object == new.object):
        key = f"tenant {ledger.tenant}"
        raise ForbiddenError(
            f"{key}: limits and status are an administrator's to set, not the {who}'s"
        )
    if new is None:
        children = [name for name in sorted(ledger.namespaces) if name != SYSTEM_NAME]
        if children or ledger.counts(SYSTEM_NAME) != Counts():
            held = f"namespace {children[0]}" if children else str(ledger.counts(SYSTEM_NAME))
            more = f" and {len(children) - 1} more" if len(children) > 1 else ""
            raise AdmissionError(
                f"tenant {ledger.tenant}: has {held}{more}; "
                "expected none, or to delete them as well"
            )
        return _write(turn, old, None, ledger.delete())
    return _write(turn, old, new, ledger.put())


async def _namespace(
    turn: Turn, who: Actor, old: DataObject | None, new: DataObject | None
) -> Plan:
    ledger = _ledger(turn)
    if new is None:
        assert old is not None
        counts = ledger.counts(old.name)
        if counts != Counts():
            raise AdmissionError(
                f"namespace {old.tenant}/{old.name}: has {counts}; "
                "expected none, or to delete them as well"
            )
        return _write(turn, old, None, ledger.without_namespace(old.name).put())
    await _tenant_open(turn, new, even_disabled=who.is_admin and old is not None)
    return _write(turn, old, new, ledger.counting(new.name).put())


async def _function(turn: Turn, old: DataObject | None, new: DataObject | None) -> Plan:
    ledger = _ledger(turn)
    if new is None:
        assert old is not None
        ledger = ledger.counting(old.namespace, functions=-1)
        return _write(turn, old, None, Delete(_status_key(old).path), ledger.put())
    limits = await _tenant_open(turn, new)
    await _namespace_open(turn, new)
    check_function(new, limits)
    link = link_of(new)
    if link is not None and await turn.get(link) is None:
        raise AdmissionError(
            f"{new.key}: object.spec.policy.Link: there is no {link}; expected one"
        )
    if old is None:
        if ledger.functions >= limits.max_funccount:
            raise LimitError(
                f"{new.key}: tenant {new.tenant} has {ledger.functions} functions; "
                f"expected fewer than max_funccount, which is {limits.max_funccount}"
            )
        ledger = ledger.counting(new.namespace, functions=1)
    elif _spec(old) == {**_spec(new), "version": version_of(old)}:
        return _write(turn, old, _with_version(new, version_of(old)), ledger.put())
    # The latest turn's commit: above every version so far, and no other function's.
    version = ledger.modified
    status = await turn.store.get(_status_key(new).path)
    plan = _write(
        turn,
        old,
        _with_version(new, version),
        Put(_status_key(new).path, encode(_first_status(new, version, status))),
        ledger.put(),
    )
    expect = Expect(_status_key(new).path, ABSENT if status is None else status.modified)
    return msgspec.structs.replace(plan, expects=(*plan.expects, expect))


async def _policy(turn: Turn, old: DataObject | None, new: DataObject | None) -> Plan:
    ledger = _ledger(turn)
    if new is None:
        assert old is not None
        await _check_unlinked(turn, old.key)
        return _write(turn, old, None, ledger.counting(old.namespace, policies=-1).put())
    limits = await _tenant_open(turn, new)
    if new.namespace != SYSTEM_NAME:
        await _namespace_open(turn, new)
    check_policy(new, limits)
    if old is None:
        ledger = ledger.counting(new.namespace, policies=1)
    return _write(turn, old, new, ledger.put())


async def _status(turn: Turn, old: DataObject | None, new: DataObject | None) -> Plan:
    if old is None or new is None:
        key = (old or cast("DataObject", new)).key
        raise AdmissionError(f"{key}: comes and goes with its function; expected an update")
    function = await turn.get(msgspec.structs.replace(old.key, type="function"))
    told = msgspec.convert(new.object, FunctionStatus).version
    if function is None or version_of(function) != told:
        is_now = "there is none" if function is None else f"it is at {version_of(function)}"
        raise AdmissionError(f"{new.key}: of version {told} of the function; {is_now}")
    # A new version would have replaced the status as well: that it is as it was is enough.
    return _write(turn, old, new)


def _write(turn: Turn, old: DataObject | None, new: DataObject | None, *more: Change) -> Plan:
    """Return the plan of one object and what goes with it; of nothing, if nothing changes."""
    one = new or old
    assert one is not None
    expects = [Expect(one.key.path, old.revision if old else ABSENT)]
    if turn.ledger is not None:
        expects.append(turn.ledger.expect())
    if new is None:
        return Plan((Delete(one.key.path), *more), expects)
    value = encode(new)
    # Under a lease it is written all the same: the lease may be another one.
    if old is not None and value == encode(old) and turn.lease == NO_LEASE:
        return Plan(())
    return Plan((Put(new.key.path, value, turn.lease), *more), expects)


async def _tenant_open(turn: Turn, one: DataObject, *, even_disabled: bool = False) -> Limits:
    """Return the limits of an object's tenant, which is there and not disabled."""
    found = await turn.get(Key("tenant", SYSTEM_NAME, SYSTEM_NAME, one.tenant))
    if found is None:
        raise AdmissionError(f"{one.key}: there is no tenant {one.tenant}; expected one")
    tenant = msgspec.convert(found.object, Tenant)
    if tenant.status.disable and not even_disabled:
        raise AdmissionError(f"{one.key}: tenant {one.tenant} is disabled; expected an enabled one")
    return tenant.spec.limit


async def _namespace_open(turn: Turn, one: DataObject) -> None:
    place = f"namespace {one.tenant}/{one.namespace}"
    found = await turn.get(Key("namespace", one.tenant, SYSTEM_NAME, one.namespace))
    if found is None:
        raise AdmissionError(f"{one.key}: there is no {place}; expected one")
    if msgspec.convert(found.object, Namespace).status.disable:
        raise AdmissionError(f"{one.key}: {place} is disabled; expected an enabled one")


async def _check_unlinked(turn: Turn, policy: Key) -> None:
    """Refuse to leave a function with a link that leads nowhere."""
    for entry in (await turn.store.list(Selection("function", policy.tenant).prefix)).entries:
        function = decode(entry)
        if link_of(function) == policy:
            raise AdmissionError(f"{policy}: {function.key} links to it; expected no link")


def _first_status(function: DataObject, version: int, before: Entry | None) -> DataObject:
    """Return the status of a new version: nothing has failed yet, and it is published as before."""
    published = False
    if before is not None:
        published = msgspec.convert(decode(before).object, FunctionStatus).published
    return DataObject(
        type="funcstatus",
        tenant=function.tenant,
        namespace=function.namespace,
        name=function.name,
        object=cast(
            "Body", msgspec.to_builtins(FunctionStatus(version=version, published=published))
        ),
    )


def _status_key(function: DataObject) -> Key:
    return msgspec.structs.replace(function.key, type="funcstatus")


def _with_version(function: DataObject, version: int) -> DataObject:
    spec = {**_spec(function), "version": version}
    return msgspec.structs.replace(function, object={"spec": spec})


def _spec(function: DataObject) -> Body:
    return cast("Body", function.object["spec"])


def _ledger(turn: Turn) -> Ledger:
    assert turn.ledger is not None, "objects of a tenant are written in turns"
    return turn.ledger
