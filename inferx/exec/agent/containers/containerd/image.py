"""What an image that containerd has unpacked gives a pod: its files and its environment."""

import hashlib
import platform
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.ports import AgentError

__all__ = ["Image", "architecture", "chain_id", "find_image", "image_at"]

JSON_BYTES = 4 << 20
"""No index, manifest or config of an image is larger than what registries accept."""

T = TypeVar("T")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a pod needs it.

    Attributes:
        digest: Of its manifest for this platform: another is another image, whatever its name.
        chain: Key of the committed snapshot that holds its files.
        env: Its environment.
        entrypoint: Its program, and arguments that come before all others.
    """

    digest: str
    chain: str
    env: dict[str, str]
    entrypoint: tuple[str, ...]


class _Platform(msgspec.Struct):
    architecture: str = ""
    os: str = ""


class _Descriptor(msgspec.Struct):
    digest: str
    platform: _Platform | None = None


class _Manifest(msgspec.Struct):
    """An image's manifest, or an index of several."""

    config: _Descriptor | None = None
    manifests: list[_Descriptor] = msgspec.field(default_factory=list[_Descriptor])


class _Rootfs(msgspec.Struct):
    diff_ids: list[str]


class _Run(msgspec.Struct, rename={"env": "Env", "entrypoint": "Entrypoint"}):
    env: list[str] | None = None
    entrypoint: list[str] | None = None


class _Config(msgspec.Struct):
    rootfs: _Rootfs
    config: _Run | None = None


def chain_id(diff_ids: Sequence[str]) -> str:
    """Return the name of a stack of layers, as the OCI image specification defines it."""
    chain = diff_ids[0]
    for diff in diff_ids[1:]:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff}'.encode()).hexdigest()}"
    return chain


def architecture() -> str:
    """Return this machine's architecture as images call it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def find_image(client: api.Client, name: str) -> Image | None:
    """Look an image up that containerd has; None where it has none of that name.

    Raises:
        AgentError: It is of another platform, or is not what an image looks like.
    """
    try:
        found = client.call(api.GET_IMAGE, pb.GetImageRequest(name=name), phase="start")
    except api.Refused as refused:
        if refused.code != "NOT_FOUND":
            raise
        return None
    return image_at(client, found.image.target.digest, name)


def image_at(client: api.Client, digest: str, name: str) -> Image:
    """Return the image of a digest, be that of a manifest or of an index of several.

    Args:
        client: Where containerd is.
        digest: Which.
        name: What errors call it.

    Raises:
        AgentError: containerd does not have it, or as in `find_image`.
    """
    manifest = _read(client, digest, _Manifest, name)
    if manifest.manifests:
        digest = _of_here(manifest.manifests, name).digest
        manifest = _read(client, digest, _Manifest, name)
    if manifest.config is None:
        raise AgentError(f"image {name!r}: its manifest names no config", phase="start")
    config = _read(client, manifest.config.digest, _Config, name)
    if not config.rootfs.diff_ids:
        raise AgentError(f"image {name!r} has no layers", phase="start")
    run = config.config or _Run()
    words = run.env or []
    env = dict(word.split("=", 1) for word in words if "=" in word)
    return Image(
        digest=digest,
        chain=chain_id(config.rootfs.diff_ids),
        env=env,
        entrypoint=tuple(run.entrypoint or ()),
    )


def _of_here(manifests: Sequence[_Descriptor], name: str) -> _Descriptor:
    here = architecture()
    for one in manifests:
        if one.platform is None or (
            one.platform.os == "linux" and one.platform.architecture == here
        ):
            return one
    raise AgentError(f"image {name!r} has nothing for linux/{here}", phase="start")


def _read(client: api.Client, digest: str, kind: type[T], name: str) -> T:
    try:
        blob = client.read(digest, phase="start", limit=JSON_BYTES)
    except api.Refused as refused:
        if refused.code != "NOT_FOUND":
            raise
        text = f"image {name!r}: containerd does not have {digest}"
        raise AgentError(text, phase="image") from refused
    try:
        return msgspec.json.decode(blob, type=kind)
    except UNDECODABLE as error:
        raise AgentError(f"image {name!r}: {digest} cannot be read: {error}", phase="start") from (
            error
        )
