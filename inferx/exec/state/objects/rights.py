"""Who may write objects of which type, and where. Who may read them is decided before."""

from inferx.exec.state.objects.actor import Actor, Role
from inferx.exec.state.objects.envelope import SYSTEM_NAME, Key
from inferx.exec.state.objects.errors import ForbiddenError
from inferx.exec.state.objects.kinds import KINDS

__all__ = ["check_rights"]


def check_rights(who: Actor, key: Key, *, ends: bool = False) -> None:
    """Refuse who may not write objects of a type, in a place; or not end them.

    Raises:
        ForbiddenError: They may not.
    """
    match key.type:
        case "tenant":
            allowed = who.is_admin or (who.owns(key.name) and not ends)
        case "namespace":
            allowed = who.owns(key.tenant)
        case _ if KINDS[key.type].is_services:
            allowed = who.role is Role.SYSTEM
        case _:
            own = key.namespace != SYSTEM_NAME and who.keeps(key.tenant, key.namespace)
            allowed = own or who.owns(key.tenant)
    if not allowed:
        raise ForbiddenError(f"{key}: not for the {who} to write")
