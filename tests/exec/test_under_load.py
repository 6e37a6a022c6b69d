"""Nothing is lost under load: clients ask without pause while parts of a cluster die."""

import asyncio
from collections.abc import Iterator

import pytest
from agent_node import needs_node
from cluster_up import Up, up
from faults import (
    GPUS,
    check_cluster,
    hurt,
    killed,
    paused,
    ready,
    worker_killed,
    worker_log,
)

pytestmark = needs_node

KILLED = ("scheduler", "gateway", "node-0", "state")
FRESH = tuple(f"f{number}" for number in range(8))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("load")
    log = worker_log(folder)
    with up(folder, "--journal", "--worker-set", f"request-log={log}", gpus=GPUS) as cluster:
        ready(cluster, FRESH)
        yield cluster


@pytest.mark.parametrize("name", KILLED)
def test_inv_1_inv_8_a_service_is_killed_and_nothing_is_lost(cluster: Up, name: str) -> None:
    log = worker_log(cluster.folder.parent)
    fresh = FRESH[KILLED.index(name)]
    came = asyncio.run(hurt(cluster, killed(cluster, name), log, fresh=fresh, prefix=name))
    print(came.account.reasons, came.back_s, came.fresh_s, came.account.gap_s())
    came.account.check()
    print(check_cluster(cluster))


def test_a_worker_is_killed_and_nothing_is_lost(cluster: Up) -> None:
    log = worker_log(cluster.folder.parent)
    came = asyncio.run(hurt(cluster, worker_killed(log, "w0"), log, fresh=FRESH[4], prefix="w"))
    print(came.account.reasons, came.back_s, came.fresh_s, came.account.gap_s())
    came.account.check()
    print(check_cluster(cluster))


def test_inv_8_a_leader_pauses_past_its_lease_and_nothing_is_lost(cluster: Up) -> None:
    log = worker_log(cluster.folder.parent)
    with cluster.another("scheduler", "--journal", str(cluster.folder / "journals")):
        came = asyncio.run(
            hurt(cluster, paused(cluster, "scheduler", 6), log, fresh=FRESH[5], prefix="p")
        )
    print(came.account.reasons, came.back_s, came.fresh_s, came.account.gap_s())
    came.account.check()
    print(check_cluster(cluster))
