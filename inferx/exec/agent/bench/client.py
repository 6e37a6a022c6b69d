"""What the bench asks of a worker: an answer, and the checksum of what it holds."""

import http.client
import json
from typing import Any

from inferx.exec.agent.ports import AgentError

__all__ = ["answer", "checksum"]

PATIENCE_S = 300.0
"""Hashing some gigabytes takes its time on a busy machine."""


def answer(address: str) -> str:
    """Return the text of a short completion, always of the same prompt."""
    body = {"prompt": "What is kept?", "max_tokens": 4, "ignore_eos": True}
    return str(_ask(address, "POST", "/v1/completions", body)["choices"][0]["text"])


def checksum(address: str) -> str:
    """Return the digest of all weights as they lie in memory."""
    return str(_ask(address, "GET", "/checksum")["sha256"])


def _ask(address: str, method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Connection": "close"})
        reply = connection.getresponse()
        told = reply.read()
        if reply.status != http.client.OK:
            raise AgentError(f"{address}{path}: answered {reply.status}; expected 200")
        return json.loads(told)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AgentError(f"{address}{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()
