"""Secrets of registries: read from a file when containerd asks for them, and told to it alone.

containerd asks during a pull, over a stream of its own, and only for a registry that wants them.
They are in no argument list, no environment and no log; the file is read each time, for what is in
it may last hours.
"""

import base64
import binascii
import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Generator
from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.ports import AgentError

__all__ = ["answering", "secret_of"]

INIT_TYPE = "containerd.services.streaming.v1.StreamInit"
ANSWER_TYPE = "containerd.types.transfer.AuthResponse"
HUB = "docker.io"
HUB_NAMES = (HUB, "registry-1.docker.io", "index.docker.io", "https://index.docker.io/v1/")
"""Docker Hub is written in each of these ways."""

log = logging.getLogger(__name__)


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _File(msgspec.Struct):
    auths: dict[str, _Entry]


def secret_of(file: Path, host: str) -> tuple[str, str] | None:
    """Return user and password for a registry, from a file as Docker and Kubernetes have it.

    That is `{"auths": {HOST: {"auth": BASE64 OF USER:PASSWORD}}}`; None where it has none.

    Raises:
        AgentError: It cannot be read; what is in it is not quoted.
    """
    try:
        read = msgspec.json.decode(file.read_bytes(), type=_File)
    except OSError as error:
        raise AgentError(f"{file} cannot be read: {error.strerror}", phase="image") from error
    except UNDECODABLE:
        text = f'{file}: expected {{"auths": {{HOST: {{"auth": BASE64}}}}}}'
        raise AgentError(text, phase="image") from None
    names = HUB_NAMES if host in HUB_NAMES else (host, f"https://{host}", f"http://{host}")
    entry = next((read.auths[name] for name in names if name in read.auths), None)
    if entry is None:
        return None
    if not entry.auth:
        return entry.username, entry.password
    try:
        user, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        text = f"{file}: {host}: expected the base64 of USER:PASSWORD"
        raise AgentError(text, phase="image") from None
    return user, password


@contextlib.contextmanager
def answering(client: api.Client, file: Path, *, within_s: float) -> Generator[str]:
    """Answer containerd's questions for secrets; yields the name of the stream that it asks on.

    Raises:
        AgentError: containerd has no such streams.
    """
    name = f"auth-{secrets.token_hex(8)}"
    told: queue.SimpleQueue[pb.Any | None] = queue.SimpleQueue()
    told.put(api.packed(INIT_TYPE, pb.StreamInit(id=name)))
    asked = client.converse(api.STREAM, iter(told.get, None), phase="image", deadline_s=within_s)
    thread = threading.Thread(target=_answer, args=(asked, told, file), name=name, daemon=True)
    try:
        # Its first word says that it knows the name.
        next(asked)
        thread.start()
        yield name
    finally:
        told.put(None)
        asked.close()
        if thread.is_alive():
            thread.join()


def _answer(
    asked: api.Conversation[pb.Any], told: "queue.SimpleQueue[pb.Any | None]", file: Path
) -> None:
    # It ends when its stream is closed: the pull, which then has ended, tells what went wrong.
    with contextlib.suppress(api.Refused):
        for question in asked:
            answer = pb.AuthResponse(authType=pb.NONE)
            host = pb.AuthRequest.FromString(question.value).host
            try:
                found = secret_of(file, host)
            except AgentError as error:
                # To containerd: no secret. The file was readable a moment ago.
                log.warning("registry_secret_unreadable host=%s error=%s", host, error)
                found = None
            if found is not None:
                user, password = found
                answer = pb.AuthResponse(authType=pb.CREDENTIALS, username=user, secret=password)
            told.put(api.packed(ANSWER_TYPE, answer))
