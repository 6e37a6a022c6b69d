"""A whole cluster on this machine, and the command line that asks it."""

import json
import zlib
from types import SimpleNamespace

import pytest
from agent_node import needs_node
from cluster_up import up
from command_line import call, good

__all__ = ["call", "good"]


ISSUER = "http://127.0.0.1:9/realms/r"


def pytest_collection_modifyitems(items):
    """Everything here that asks the cluster needs a node that can run."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(needs_node)


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """A cluster of one node with two GPUs, and an issuer of tokens that nobody asks."""
    oidc = ("--oidc-issuer", ISSUER, "--oidc-audience", "inferx", "--oidc-name-claim", "email")
    with up(tmp_path_factory.mktemp("client"), *oidc) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No command here finds its user's own contexts or environment."""
    for name in ("INFERX_SERVER", "INFX_GATEWAY_URL", "INFERX_API_KEY", "INFERX_TENANT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INFERX_CONTEXTS", str(tmp_path / "contexts.toml"))


@pytest.fixture
def issuer():
    """Return the URL of the only one whose tokens the cluster takes."""
    return ISSUER


@pytest.fixture
def cluster(running, monkeypatch):
    """The cluster, asked as its administrator, in a tenant that no other test has."""
    monkeypatch.setenv("INFERX_SERVER", running.gateway)
    monkeypatch.setenv("INFERX_API_KEY", running.key)
    return running


@pytest.fixture
def stated(tmp_path, request):
    """Write functions of a tenant that no other test has; return the tenant and their file."""
    tenant = f"t{zlib.crc32(request.node.nodeid.encode())}"

    def write(*names, **spec):
        functions = [
            {
                "type": "function",
                "tenant": tenant,
                "namespace": "chat",
                "name": name,
                "labels": {"team": name},
                "object": {"spec": _spec(name) | spec},
            }
            for name in names
        ]
        path = tmp_path / "functions.json"
        path.write_text(json.dumps(functions))
        return str(path)

    return SimpleNamespace(tenant=tenant, write=write)


def _spec(name):
    return {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", name],
        "resources": {
            "CPU": 1000,
            "Mem": 24_000,
            "GPU": {"Type": "Any", "Count": 1, "vRam": 12_000},
        },
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"queue_timeout": 60.0, "parallel": 8}},
        "inferx": {"milli_gpu": 150},
    }
