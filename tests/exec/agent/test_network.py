"""Pods' network namespaces: reached from the host, not from each other, and gone afterwards."""

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_parts import until

from inferx.exec.agent.network import BridgedNetwork, Place
from inferx.exec.agent.ports import AgentError

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
)
LISTEN = """
import socket, sys
server = socket.create_server(("0.0.0.0", 8000))
print("up", flush=True)
while True:
    server.accept()[0].close()
"""
CONNECT = (
    "import socket, sys; socket.create_connection((sys.argv[1], 8000), timeout=float(sys.argv[2]))"
)


@pytest.fixture
def network() -> Iterator[BridgedNetwork]:
    name = f"n{secrets.token_hex(2)}"
    subnet = ipaddress.IPv4Network(f"10.232.{secrets.randbelow(256)}.0/29")
    made = BridgedNetwork(name, subnet)
    try:
        yield made
    finally:
        made.recover(frozenset())
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
        assert not list(Path("/var/run/netns").glob(f"{name}-*"))


def python(place: Place, program: str, *words: str) -> list[str]:
    """Return how a program is run where a pod is; empty is the host."""
    inside = ["nsenter", f"--net={place.namespace}"] if place.namespace else []
    return [*inside, sys.executable, "-c", program, *words]


def links() -> list[str]:
    return [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))]


def test_the_host_reaches_a_pod_and_another_pod_does_not(network: BridgedNetwork) -> None:
    assert network.probe().available
    one, other = network.enter("pod-1"), network.enter("pod-2")
    with subprocess.Popen(python(one, LISTEN), stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            host = Place("", "")
            subprocess.run(python(host, CONNECT, one.host, "5"), check=True)
            barred = subprocess.run(
                python(other, CONNECT, one.host, "0.5"), capture_output=True, check=False
            )
            assert barred.returncode != 0
        finally:
            server.kill()
    network.leave("pod-1")
    network.leave("pod-2")
    network.close()
    # The kernel takes a namespace down, and what ends in it, in its own time.
    until(lambda: not [link for link in links() if link.startswith(network.name)])


def test_a_new_agent_knows_the_addresses_and_removes_what_is_left(network: BridgedNetwork) -> None:
    kept, left = network.enter("pod-1"), network.enter("pod-2")
    subprocess.run(["ip", "netns", "add", f"{network.name}-probe-1"], check=True)

    again = BridgedNetwork(network.name, network.subnet)
    again.recover(frozenset({"pod-1"}))

    assert again.enter("pod-3").host == left.host != kept.host
    there = {path.name for path in Path("/var/run/netns").glob(f"{network.name}-*")}
    assert there == {f"{network.name}-pod-1", f"{network.name}-pod-3"}


def test_addresses_run_out_in_one_line_and_nothing_is_left_of_it(network: BridgedNetwork) -> None:
    hosts = [network.enter(f"pod-{number}").host for number in range(5)]
    assert len(set(hosts)) == 5
    with pytest.raises(AgentError, match="all addresses taken"):
        network.enter("pod-9")
    network.leave("pod-3")
    assert network.enter("pod-9").host == hosts[3]


def test_whoever_comes_to_an_address_is_reached_at_once(network: BridgedNetwork) -> None:
    # All others are taken: both of them get the same one.
    for number in range(4):
        network.enter(f"pod-{number}")
    hosts = set()
    for pod in ("pod-8", "pod-9"):
        place = network.enter(pod)
        hosts.add(place.host)
        with subprocess.Popen(python(place, LISTEN), stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                subprocess.run(python(Place("", ""), CONNECT, place.host, "2"), check=True)
            finally:
                server.kill()
        network.leave(pod)
    assert len(hosts) == 1


def test_an_address_is_not_given_again_before_all_others(network: BridgedNetwork) -> None:
    hosts = []
    for number in range(5):
        hosts.append(network.enter(f"pod-{number}").host)
        network.leave(f"pod-{number}")
    assert len(set(hosts)) == 5


def test_the_hosts_link_address_stays_while_pods_come_and_go(network: BridgedNetwork) -> None:
    def address() -> str:
        told = json.loads(subprocess.check_output(["ip", "-j", "link", "show", network.name]))
        return str(told[0]["address"])

    network.enter("pod-0")
    before = address()
    for number in range(1, 5):
        network.enter(f"pod-{number}")
    for number in range(5):
        network.leave(f"pod-{number}")
    assert address() == before


def test_a_link_of_another_is_neither_used_nor_removed(network: BridgedNetwork) -> None:
    subprocess.run(["ip", "link", "add", network.name, "type", "bridge"], check=True)
    with pytest.raises(AgentError, match="is there, and not this agent's"):
        network.enter("pod-1")
    network.close()
    assert network.name in links()


def test_who_gets_an_address_again_is_where_the_host_remembers_it(network: BridgedNetwork) -> None:
    left = network.enter("pod-1")
    for number in range(2, 6):  # While others are there the bridge stays up, and forgets nothing.
        network.enter(f"pod-{number}")
    with subprocess.Popen(python(left, LISTEN), stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        subprocess.run(python(Place("", ""), CONNECT, left.host, "5"), check=True)
        asked = ["ip", "-j", "neigh", "show", "to", left.host, "dev", network.name]
        remembered = {one.get("lladdr") for one in json.loads(subprocess.check_output(asked))}
        server.kill()
    network.leave("pod-1")
    again = network.enter("pod-6")
    assert again.host == left.host
    there = ["ip", "-n", Path(again.namespace).name, "-j", "link", "show", "eth0"]
    assert remembered == {one["address"] for one in json.loads(subprocess.check_output(there))}


def test_an_address_that_was_left_is_not_given_again_at_once(network: BridgedNetwork) -> None:
    given = [network.enter("pod-1").host]
    for _ in range(4):
        network.leave("pod-1")
        given.append(network.enter("pod-1").host)
    assert len(set(given)) == 5
    network.leave("pod-1")
    assert network.enter("pod-1").host == given[0]
