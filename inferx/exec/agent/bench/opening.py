"""A node for a bench: assembled, and cleaned of all that the bench has made."""

import secrets
import shutil
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from inferx.core.types import PodId
from inferx.exec.agent.bench.plan import Plan, Subject, deployed
from inferx.exec.agent.bench.rounds import Bench
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.freezing import Freezing
from inferx.exec.agent.network import HostNetwork
from inferx.exec.agent.node import assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError

__all__ = ["opened"]

_PORT = 8000


@contextmanager
def opened(config: AgentConfig, plan: Plan) -> Generator[Bench]:
    """Assemble a node for a bench; its pods, and what it has written, are gone afterwards.

    Raises:
        AgentError: The node lacks something; or an agent, or its pods, are on the same state.
    """
    weights = config.state / "bench"
    config = replace(config, mounts=(weights,))
    node = assemble(config, all_asked=False)
    try:
        for name in plan.tiers:
            node.store.tier(name)
        shared = isinstance(node.network, HostNetwork)
        functions = _functions(
            plan.subjects(),
            weights,
            port=_free_port() if shared else _PORT,
            seed=plan.seed,
            mounted=node.sandbox.name != "process",
        )
        pods = Pods(node, {one.id: one for one in functions})
        try:
            if Executor(pods).recover().adopted:
                raise AgentError(
                    f"{config.state}: pods of an agent that stopped; expected none: start it"
                    " again, or give another state"
                )
            weights.mkdir(mode=0o700, exist_ok=True)
            try:
                yield Bench(Freezing(pods), plan, weights)
            finally:
                _clean(pods)
                shutil.rmtree(weights)
        finally:
            pods.close()
    finally:
        node.close()


def _clean(pods: Pods) -> None:
    """Remove pods and snapshots, as the next agent would: an interrupt comes between any two steps.

    So there may be pieces of a pod that only their names tell of, and a pod that is on record and
    not yet known.
    """
    node = pods.node
    _stop_all(pods)
    Executor(pods).recover()
    _stop_all(pods)
    names = {one.launch.function for one in pods.functions.values()}
    for found in node.store.everything():
        if found.manifest.function in names:
            node.store.delete(found.manifest.id)
    node.network.close()


def _stop_all(pods: Pods) -> None:
    for one in pods.all():
        pods.stop(PodId(one.record.pod))


def _functions(
    subjects: Sequence[Subject], weights: Path, *, port: int, seed: int, mounted: bool
) -> list[Deployed]:
    # Snapshots of another bench, on a shared tier, are not ours.
    token = secrets.token_hex(4)
    return [
        deployed(
            number,
            token,
            one,
            weights / f"{one.engine}-{one.weight_bytes}.bin",
            port=port,
            seed=seed,
            mounted=mounted,
        )
        for number, one in enumerate(subjects)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
