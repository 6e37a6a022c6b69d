"""A connection outlives the process that it is to: dumped, gone and restored beneath it."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    AgentNode,
    agent_node,
    ask,
    function,
    gpu,
    memory,
    needs_node,
    pod,
    traces,
)
from plain_pods import free_port
from standin_gpus import Node as Gpus
from standin_gpus import enter

from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    with agent_node(tmp_path, gpus, function(gpus, port=free_port()), network="host") as made:
        yield made
    assert not traces(made)


def next_answer(client: http.client.HTTPConnection) -> dict[str, object]:
    """Ask over a connection, and never over another."""
    assert client.sock is not None
    client.request("GET", "/count")
    with client.getresponse() as answer:
        return dict(json.loads(answer.read()))


def test_client_does_not_notice_a_restore(node: AgentNode) -> None:
    with node.agent() as agent:
        one = agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        before = memory(one)
        host, _, port = one.record.address.partition(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as client:
            client.connect()
            assert client.sock is not None
            here = client.sock.getsockname()
            assert next_answer(client)["counter"] == 2
            agent.freezing.snapshot(pod(1), Phases(), leave=True, keep_connections=True)
            assert agent.pods.all() == []
            # It asks while nobody is there.
            client.request("GET", "/count")
            one = agent.freezing.restore(pod(2), FUNCTION, gpu(1), Phases(), keep_connections=True)
            with client.getresponse() as answer:
                assert json.loads(answer.read())["counter"] == 3
            assert next_answer(client)["counter"] == 4
            assert client.sock.getsockname() == here
        assert memory(one) == before


def test_connections_are_closed_unless_they_are_to_be_kept(node: AgentNode) -> None:
    with node.agent() as agent:
        one = agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        host, _, port = one.record.address.partition(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as client:
            client.connect()
            next_answer(client)
            agent.freezing.snapshot(pod(1), Phases(), leave=True)
            one = agent.freezing.restore(pod(2), FUNCTION, gpu(0), Phases())
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                next_answer(client)
        assert ask(one, "/count")["counter"] == 2
        with pytest.raises(AgentError, match="dumped without them"):
            agent.freezing.restore(pod(3), FUNCTION, gpu(1), Phases(), keep_connections=True)


def test_connections_into_a_namespace_of_its_own_cannot_be_kept(node: AgentNode) -> None:
    with node.agent(network="bridge") as agent:
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        with pytest.raises(AgentError, match="on the host's network only") as caught:
            agent.freezing.snapshot(pod(1), Phases(), leave=True, keep_connections=True)
        assert (caught.value.phase, caught.value.survived) == ("share", True)
        assert memory(agent.pods.get(pod(1))) == before
