"""Which cluster, and who asks: the environment, or a file of named contexts.

The file holds keys, so it is its owner's alone: one that others can read is refused, not read.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from inferx.client.errors import ClientError
from inferx.spec.document import read_document
from inferx.spec.table import Table, top_table

__all__ = ["Context", "Contexts", "chosen", "contexts_path", "read_contexts", "write_contexts"]

SERVER: Final = "INFERX_SERVER"
SERVER_TOO: Final = "INFX_GATEWAY_URL"
"""The same, to who comes from another tool; ours wins."""
KEY: Final = "INFERX_API_KEY"
TENANT: Final = "INFERX_TENANT"
FILE: Final = "INFERX_CONTEXTS"
CONTEXTS_LIMIT: Final = 256
DEFAULT_SERVER: Final = "http://127.0.0.1:4000"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HIDDEN: Final = 0o077
"""What nobody but the owner may do with the file."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster as one user meets it.

    Attributes:
        server: The gateway's URL.
        key: An API key; empty asks as nobody.
        tenant: Whose objects are meant where a command names no tenant.
    """

    server: str
    key: str = ""
    tenant: str = ""


class Contexts(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `current` names the one in use; empty is none."""

    current: str = ""
    named: Mapping[str, Context] = {}

    def get(self, name: str) -> Context:
        """Return a context by its name.

        Raises:
            ClientError: There is none.
        """
        if name not in self.named:
            known = ", ".join(self.named) or "none"
            raise ClientError(f"context {name}: there is none of that name; there are: {known}")
        return self.named[name]


def contexts_path() -> Path:
    """Return where the file is, or would be."""
    if named := os.environ.get(FILE):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "inferx" / "context.toml"


def read_contexts(path: Path) -> Contexts:
    """Read the file; one that is not there holds nothing.

    Raises:
        ClientError: Others can read or write it.
        DescriptionError: It says something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Contexts()
    if mode & _HIDDEN:
        found = f"mode {mode & 0o777:04o}"
        raise ClientError(f"{path}: {found}; expected 0600, as it holds keys: chmod 600 {path}")
    table = top_table(read_document(path))
    current = table.text("current", "")
    named: dict[str, Context] = {}
    if "contexts" in table:
        for name, one in table.table("contexts").subtables():
            named[name] = _context(one)
    table.close()
    return Contexts(current=current, named=named)


def _context(table: Table) -> Context:
    found = Context(
        server=table.text("server"), key=table.text("key", ""), tenant=table.text("tenant", "")
    )
    table.close()
    return found


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Write the file, whole, for its owner alone.

    Raises:
        ClientError: A context cannot be called so, or there are too many.
    """
    if len(contexts.named) > CONTEXTS_LIMIT:
        raise ClientError(f"{path}: more than {CONTEXTS_LIMIT} contexts; remove one")
    lines = [f"current = {json.dumps(contexts.current)}"] if contexts.current else []
    for name, one in contexts.named.items():
        if not _NAME.fullmatch(name):
            expected = "1 to 64 letters, digits and - _ ."
            raise ClientError(f"context {name!r}: expected {expected}")
        lines += ["", f"[contexts.{json.dumps(name)}]"]
        # JSON's texts are TOML's, as long as they are ASCII.
        stated = {"server": one.server, "key": one.key, "tenant": one.tenant}
        lines += [f"{key} = {json.dumps(text)}" for key, text in stated.items() if text]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # A temporary file is its owner's alone from the first.
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines).lstrip("\n") + "\n")
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def chosen(server: str | None, context: str | None, environment: Mapping[str, str]) -> Context:
    """Return which cluster a command asks, and as whom.

    A key that a context holds goes to that context's server alone.

    Args:
        server: The command line's; None where it names none.
        context: The command line's; None where it names none.
        environment: Of the process.
    """
    stated = server or ""
    if not (stated or context):
        stated = environment.get(SERVER) or environment.get(SERVER_TOO, "")
    key, tenant = environment.get(KEY, ""), environment.get(TENANT, "")
    found: Context | None = None
    if context or not (stated and key):
        contexts = read_contexts(contexts_path())
        name = context or contexts.current
        found = contexts.get(name) if name else None
    if found is None:
        return Context(server=stated or DEFAULT_SERVER, key=key, tenant=tenant)
    same = not stated or stated.rstrip("/") == found.server.rstrip("/")
    kept = found.key if same else ""
    return Context(
        server=stated or found.server,
        # Who names a context means its key, whatever the environment has.
        key=(kept or key) if context else (key or kept),
        tenant=tenant or (found.tenant if same else ""),
    )
