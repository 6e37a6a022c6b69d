"""A whole cluster's metrics, as documented, and as Debian's Prometheus reads and adds them up."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_node import needs_node
from cluster_up import Up, function, up
from metrics_page import documented, questions
from prometheus_server import needs_prometheus, prometheus, scraped

pytestmark = needs_node

CALLS = 7
"""Of each of two functions, after the first."""
SOON_S = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Return a cluster that has answered `CALLS` + 1 calls of `one` and of `two`."""
    with up(tmp_path_factory.mktemp("whole"), "--journal") as made:
        asyncio.run(made.apply(function("one"), function("two"), function("idle")))
        for name in ("one", "two"):
            made.until_answers(name, SOON_S)
            for _ in range(CALLS):
                assert made.ask(name)[0] == 200
        assert made.ask("none")[0] == 404
        yield made


def service_of(name: str) -> str:
    return "agent" if name.startswith("node-") else name


@pytest.mark.parametrize("name", ["state", "scheduler", "gateway", "node-0"])
def test_a_service_tells_what_is_documented_and_nothing_else(cluster: Up, name: str) -> None:
    page = documented()
    audited = page["audit"] if name in {"gateway", "scheduler"} else ()
    expected = {one.name: one for one in (*page[""], *audited, *page[service_of(name)])}
    found = scraped(cluster.metrics[name])
    told = [one.name + ("_total" if one.type == "counter" else "") for one in found]
    assert len(set(told)) == len(told), "each is told once"
    assert sorted(told) == sorted(expected)
    for one in found:
        documented_one = expected[one.name + ("_total" if one.type == "counter" else "")]
        assert one.type == documented_one.kind
        for sample in one.samples:
            labels = set(sample.labels) - ({"le"} if sample.name.endswith("_bucket") else set())
            assert labels == set(documented_one.labels), sample


def samples(found: list[Any]) -> dict[tuple[str, ...], float]:
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in found
        for one in family.samples
    }


def test_what_was_done_is_told(cluster: Up) -> None:
    scheduler = samples(scraped(cluster.metrics["scheduler"]))
    assert scheduler["inferx_scheduler_leader",] == 1
    assert scheduler["inferx_scheduler_starts_total", "cold"] == 2
    assert scheduler["inferx_scheduler_start_seconds_count", "cold"] == 2
    assert scheduler["inferx_scheduler_decisions_total", "place", "default"] == 2
    assert scheduler["totalGPU", "node-0"] == 2
    assert sum(value for key, value in scheduler.items() if key[0] == "inferx_scheduler_pods") == 2
    assert scheduler["inferx_scheduler_journal_bytes",] > 0
    assert sum(value for key, value in scheduler.items() if key[0] == "gpu_count") == (
        pytest.approx(scheduler["usedGPU", "node-0"])
    )
    agent = samples(scraped(cluster.metrics["node-0"]))
    assert agent["inferx_agent_commands_total", "create", "done"] == 2
    assert agent["inferx_agent_phase_seconds_count", "create", "health"] == 2
    assert sum(value for key, value in agent.items() if key[0] == "inferx_agent_pods") == 2
    assert agent["inferx_agent_scrape_errors_total",] == 0
    gateway = samples(scraped(cluster.metrics["gateway"]))
    assert gateway["inferx_audit_events_total", "written"] > 0
    assert gateway["inferx_audit_events_total", "lost"] == 0
    assert gateway["inferx_gateway_journal_bytes",] > 0
    assert gateway["inferx_gateway_functions",] == 3
    assert gateway["funccallColdstartCnt_total", "one", "demo", "public"] == 1
    state = samples(scraped(cluster.metrics["state"]))
    assert state["inferx_state_transactions_total", "committed"] >= 5
    assert state["inferx_state_watchers",] > 0
    assert state["inferx_state_revision",] >= state["inferx_state_transactions_total", "committed"]


def test_scheduler_and_agent_charge_the_same(cluster: Up) -> None:
    end = time.monotonic() + SOON_S
    while True:
        told = samples(scraped(cluster.metrics["node-0"]))
        agent = sum(value for key, value in told.items() if "gpu_memory_charged" in key[0])
        told = samples(scraped(cluster.metrics["scheduler"]))
        scheduler = told["inferx_scheduler_gpu_memory_charged_bytes", "node-0"]
        # What is decided and what is done are apart for as long as it takes.
        if agent == scheduler:
            break
        assert time.monotonic() < end, (agent, scheduler)


@needs_prometheus
def test_prometheus_adds_up_what_was_sent(cluster: Up, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", cluster.folder / "prometheus.json") as server:
        server.until('count(up{job="inferx"} == 1)', lambda value: value == 4, SOON_S)
        # What a target is called and what it says of itself are labels side by side.
        told = server.ask("count by (service, component, exported_service) (inferx_build_info)")
        services = ("agent", "gateway", "scheduler", "state")
        assert sorted(told) == [(("component", one), ("service", one)) for one in services]
        served = 2 * (CALLS + 1)
        of_inference = 'inferx_gateway_requests_total{kind="inference",code="200"}'
        assert server.one(f"sum({of_inference})") == served
        assert server.one('sum(funccallcnt_total{status="200"})') == served
        assert server.ask('sum by (funcname) (funccallcnt_total{status="200"})') == {
            (("funcname", "one"),): CALLS + 1,
            (("funcname", "two"),): CALLS + 1,
        }
        assert server.one('sum(inferx_gateway_calls_total{outcome="finished"})') == served
        assert server.one("sum(inferx_gateway_ttft_seconds_count)") == served
        assert server.one("sum(funccallTtft_count) + sum(funccallCsTtft_count)") == served
        assert server.ask("sum by (start) (inferx_gateway_wait_seconds_count)") == {
            (("start", "cold"),): 2,
            (("start", "warm"),): 2 * CALLS,
        }
        # A worker was started for the one, and none for the other.
        quantile = "histogram_quantile(0.5, sum by (le) (inferx_gateway_ttft_seconds_bucket{%s}))"
        warm, cold = (server.one(quantile % f'start="{one}"') for one in ("warm", "cold"))
        assert warm is not None
        assert cold is not None
        assert 0 < warm < cold
        # The reference's is the same in milliseconds.
        theirs = server.one("histogram_quantile(0.5, sum by (le) (funccallTtft_bucket))")
        assert theirs == pytest.approx(1000 * warm)
        assert server.one("100 * sum(usedGPU) / sum(totalGPU)") is not None
        # What is sent while it looks comes on top.
        for _ in range(3):
            assert cluster.ask("one")[0] == 200
        server.until(f"sum({of_inference})", lambda value: value == served + 3, SOON_S)
        # The page's own questions have answers, once there were two scrapes to compare.
        end = time.monotonic() + SOON_S
        for question in questions():
            while not server.ask(question):
                assert time.monotonic() < end, question
                time.sleep(0.2)
        # Who is started again is where it was, and counts from its start.
        cluster.kill("scheduler")
        server.until("inferx_scheduler_epoch", lambda value: value == 2, SOON_S)
        server.until("inferx_scheduler_pods_adopted_total", lambda value: value == 2, SOON_S)
        assert server.one("inferx_scheduler_leader") == 1
