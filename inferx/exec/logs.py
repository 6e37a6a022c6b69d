"""The services' logs: one line an event, for people, or as JSON with ids to search by.

Laws:
1. A line has what happened and ids; never a key, a token, a header or a body.
2. An id has one name everywhere: `request`, `tenant`, `namespace`, `function`, `version`, `pod`,
   `node`, `epoch`, `trace`. What is not known is left out.
"""

import json
import logging
import sys
import time
from typing import Any, Final

__all__ = ["JsonLines", "function_ids", "ids", "log_to_stderr"]

_FIELDS: Final = "fields"


def ids(**fields: object) -> dict[str, dict[str, object]]:
    """Return fields as `extra` of a call to a logger; those that are None are left out."""
    return {_FIELDS: {name: value for name, value in fields.items() if value is not None}}


def function_ids(identity: str) -> dict[str, str]:
    """Return what a function's identity, `tenant/namespace/name@version`, is made of."""
    place, _, version = identity.rpartition("@")
    parts = place.split("/")
    if len(parts) != 3:
        return {"function": identity} if identity else {}
    return {
        "tenant": parts[0],
        "namespace": parts[1],
        "function": parts[2],
        "version": version,
    }


class JsonLines(logging.Formatter):
    """One object a line: when, how bad, which service, who, what, and the ids that were given."""

    def __init__(self, **service: str) -> None:
        super().__init__()
        self._service = {name: value for name, value in service.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        # A field must not pass for what the line says of itself.
        told |= {name: value for name, value in fields.items() if name not in told}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def log_to_stderr(*, as_json: bool, **service: str) -> None:
    """Have this process log to stderr.

    Args:
        as_json: Whether its lines are JSON.
        service: Which service it is, and as what; told on each line of JSON.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines(**service) if as_json else logging.Formatter("%(asctime)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
