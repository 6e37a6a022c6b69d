"""Pulls images by containerd's Transfer service: it speaks to the registry, unpacks and stores.

A service of containerd 1.7 and newer. An older one leaves it to each client to fetch, verify and
unpack: there an image must be put into the agent's namespace beforehand.
"""

import contextlib
import re
import threading
from collections.abc import Generator
from pathlib import Path

from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.containers.containerd.credentials import answering, secret_of
from inferx.exec.agent.containers.containerd.image import Image, architecture, find_image
from inferx.exec.agent.ports import AgentError

__all__ = ["PULL_S", "ImagePuller", "full_name"]

PULL_S = 1800.0
"""How long a pull may take: tens of gigabytes, from a registry that is far."""

REGISTRY_TYPE = "containerd.types.transfer.OCIRegistry"
STORE_TYPE = "containerd.types.transfer.ImageStore"

HOST = re.compile(r"[^/]*[.:][^/]*|localhost")
TAGGED = re.compile(r"[^/]*[:@][^/]*$")


def full_name(name: str) -> str:
    """Return an image's name with its registry and tag, which short names leave out.

    Those are Docker Hub and `latest`, by a convention that all clients follow.
    """
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not HOST.fullmatch(first):
        name = f"docker.io/{name}"
    return name if TAGGED.search(name) else f"{name}:latest"


class ImagePuller:
    """Finds images, and pulls those that are missing: each once, however many pods wait for it.

    Args:
        client: Where containerd is.
        snapshotter: Of containerd; images are unpacked for it.
        pull: Whether what is missing is pulled.
        secrets: File of what registries want to know; None is nothing.
        within_s: How long one may take.
    """

    def __init__(
        self,
        client: api.Client,
        *,
        snapshotter: str,
        pull: bool,
        secrets: Path | None = None,
        within_s: float = PULL_S,
    ) -> None:
        self._client = client
        self._snapshotter = snapshotter
        self._pulls = pull
        self._secrets = secrets
        self._within_s = within_s
        self._guard = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}

    def get(self, name: str) -> Image:
        """Return an image, pulled if need be.

        Raises:
            AgentError: It is not there and cannot be pulled, or is not what an image looks like.
        """
        name = full_name(name)
        if found := find_image(self._client, name):
            return found
        if not self._pulls:
            raise AgentError(f"{self._absent(name)}: pull it there first", phase="image")
        with self._guard:
            own = self._under_way.setdefault(name, threading.Lock())
        with own:
            # Another pod may have waited for the same.
            if found := find_image(self._client, name):
                return found
            self._pull(name)
        found = find_image(self._client, name)
        if found is None:
            raise AgentError(f"{self._absent(name)} after it was pulled", phase="image")
        return found

    def _pull(self, name: str) -> None:
        here = pb.Platform(os="linux", architecture=architecture())
        unpack = pb.UnpackConfiguration(platform=here, snapshotter=self._snapshotter)
        store = pb.ImageStore(name=name, platforms=[here], unpacks=[unpack])
        try:
            with self._resolver() as resolver:
                source = pb.OCIRegistry(reference=name, resolver=resolver)
                request = pb.TransferRequest(
                    source=api.packed(REGISTRY_TYPE, source),
                    destination=api.packed(STORE_TYPE, store),
                )
                self._client.call(api.TRANSFER, request, phase="image", deadline_s=self._within_s)
        except api.Refused as refused:
            if refused.code == "UNIMPLEMENTED":
                text = f"{self._absent(name)}, and this containerd cannot pull (1.7 can)"
                raise AgentError(f"{text}: pull it there first", phase="image") from refused
            raise AgentError(f"image {name!r} cannot be pulled: {refused}", phase="image") from (
                refused
            )

    @contextlib.contextmanager
    def _resolver(self) -> Generator[pb.RegistryResolver]:
        if self._secrets is None:
            yield pb.RegistryResolver()
            return
        # To containerd it would be a registry without a secret.
        secret_of(self._secrets, "")
        with answering(self._client, self._secrets, within_s=self._within_s) as stream:
            yield pb.RegistryResolver(auth_stream=stream)

    def _absent(self, name: str) -> str:
        return f"image {name!r} is not in containerd's namespace {self._client.namespace!r}"
