"""Images that containerd pulls: from a real registry on loopback, with and without secrets."""

import base64
import json
import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import system_parts as parts
from images import write_image

from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.credentials import secret_of
from inferx.exec.agent.containers.containerd.pulling import ImagePuller, full_name
from inferx.exec.agent.ports import AgentError

missing = parts.missing_parts("containerd", "runc")
if not missing and not (parts.PULL_PARTS / "docker-registry").exists():
    missing = "needs a registry and containerd 1.7: run tools/system-parts"
needs_parts = pytest.mark.skipif(bool(missing), reason=missing)

PATH = "group/server:1"
USERS = "somebody:$2b$04$RvzBvFNQqUHvaw5LnIsqtuUUm5S/d4j10xDgbgdYCQvkJYs9UPF22\n"
"""The password is `hunter2`."""


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("vllm/vllm-openai:v0.9.0", "docker.io/vllm/vllm-openai:v0.9.0"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("a/b@sha256:00", "docker.io/a/b@sha256:00"),
    ],
)
def test_a_short_name_means_what_all_clients_take_it_for(name: str, full: str) -> None:
    assert full_name(name) == full
    assert full_name(full) == full


def docker_config(path: Path, host: str, secret: str) -> Path:
    path.write_text(json.dumps({"auths": {host: {"auth": secret}}}))
    return path


def test_secrets_are_found_by_their_registry_and_not_quoted(tmp_path: Path) -> None:
    secret = base64.b64encode(b"somebody:a:b").decode()
    file = docker_config(tmp_path / "c.json", "https://index.docker.io/v1/", secret)
    assert secret_of(file, "registry-1.docker.io") == ("somebody", "a:b")
    assert secret_of(file, "ghcr.io") is None
    file.write_text('{"auths": {"ghcr.io": {"username": "u", "password": "p"}}}')
    assert secret_of(file, "ghcr.io") == ("u", "p")
    for text in ("hunter2", '{"auths": 1}', '{"auths": {"ghcr.io": {"auth": "hunter2"}}}'):
        file.write_text(text)
        with pytest.raises(AgentError, match="expected") as caught:
            secret_of(file, "ghcr.io")
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(AgentError, match="cannot be read"):
        secret_of(tmp_path / "none", "ghcr.io")


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.certificate(tmp_path_factory.mktemp("proof"))


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory, proof: Path) -> Iterator[str]:
    program = str(parts.PULL_PARTS / "containerd")
    folder = tmp_path_factory.mktemp("containerd")
    with parts.containerd(folder, program=program, trusts=proof) as (_, address):
        yield address


@contextmanager
def puller(socket: str, **more: object) -> Iterator[ImagePuller]:
    client = Client(socket, f"inferx-t-{secrets.token_hex(4)}")
    try:
        yield ImagePuller(
            client, snapshotter="overlayfs", **{"pull": True, "within_s": 30.0} | more
        )
    finally:
        client.close()


def push(folder: Path, host: str, proof: Path, *login: str) -> None:
    """Put an image into a registry, from a containerd that shares nothing with who pulls."""
    name, archive = f"{host}/{PATH}", folder / "image.tar"
    write_image(archive, name, {"etc/": b"", "etc/first": b"1"}, env=("A=b",))
    # An older client takes loopback for plain HTTP.
    how = ("--tlscacert", str(proof), *login)
    program = str(parts.PULL_PARTS / "ctr")
    with parts.containerd(folder / "pushing") as (_, socket):
        parts.ctr(socket, "t", "image", "import", "--no-unpack", str(archive))
        parts.ctr(socket, "t", "image", "push", *how, name, program=program)


@needs_parts
def test_a_missing_image_is_pulled_once(tmp_path: Path, socket: str, proof: Path) -> None:
    with puller(socket) as images:
        with parts.registry(tmp_path / "registry", proof) as host:
            push(tmp_path, host, proof)
            with ThreadPoolExecutor(3) as threads:
                found = list(threads.map(images.get, [f"{host}/{PATH}"] * 3))
            served = (tmp_path / "registry/log").read_text()
        assert found[0].env == {"A": "b"}
        assert found[0].digest.startswith("sha256:")
        assert found == [found[0]] * 3
        # Its config and its one layer.
        assert served.count('"GET /v2/group/server/blobs/') == 2
        # What is there is not asked for again.
        assert images.get(f"{host}/{PATH}") == found[0]


@needs_parts
def test_what_cannot_be_pulled_is_one_clear_line(tmp_path: Path, socket: str, proof: Path) -> None:
    with parts.registry(tmp_path / "registry", proof) as host, puller(socket) as images:
        with pytest.raises(AgentError, match=r"server:1' cannot be pulled: .*not found") as caught:
            images.get(f"{host}/{PATH}")
        assert "\n" not in str(caught.value)
        with pytest.raises(AgentError, match="cannot be pulled"):
            images.get("no name at all")
    with puller(socket) as images, pytest.raises(AgentError, match="refused") as caught:
        images.get(f"{host}/{PATH}")
    assert "\n" not in str(caught.value)
    with puller(socket, pull=False) as images, pytest.raises(AgentError, match="pull it there"):
        images.get(f"{host}/{PATH}")


@needs_parts
def test_a_containerd_that_cannot_pull_says_so(tmp_path: Path) -> None:
    with (
        parts.containerd(tmp_path / "c") as (_, old),
        puller(old) as images,
        pytest.raises(AgentError, match=r"cannot pull \(1\.7 can\): pull it there first"),
    ):
        images.get("registry.test/none:1")


@needs_parts
def test_a_registry_is_told_the_secret_that_the_file_has_for_it(
    tmp_path: Path, socket: str, proof: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with parts.registry(tmp_path / "registry", proof, users=USERS) as host:
        push(tmp_path, host, proof, "--user", "somebody:hunter2")
        name = f"{host}/{PATH}"
        for secret in ("somebody:wrong", ""):
            auth = base64.b64encode(secret.encode()).decode()
            file = docker_config(tmp_path / "c.json", host if secret else "ghcr.io", auth)
            with puller(socket, secrets=file) as images, pytest.raises(AgentError) as caught:
                images.get(name)
            assert "cannot be pulled" in str(caught.value)
            assert "wrong" not in str(caught.value)
        right = base64.b64encode(b"somebody:hunter2").decode()
        file = docker_config(tmp_path / "c.json", host, right)
        with puller(socket, secrets=file) as images:
            assert images.get(name).digest.startswith("sha256:")
    assert "hunter2" not in caplog.text
    assert right not in caplog.text
