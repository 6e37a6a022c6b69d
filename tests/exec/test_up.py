"""`inferx up`: a newcomer's first five minutes, and what happens when parts of it die."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import openai
import pytest
from agent_node import needs_node
from cluster_up import Up, function, up

from inferx.exec.agent.processes import procfs
from inferx.exec.journal import replayed
from inferx.load import load_bundle

pytestmark = needs_node

BACK_S = 20.0
"""For a service that was killed: it is started again, elected where it leads, and joined."""


def left_of(cluster: Up) -> list[str]:
    """Return what there is on this machine of a cluster that has ended."""
    found = []
    for config in cluster.folder.glob("node-*.toml"):
        name = config.read_text().partition('name = "')[2].partition('"')[0]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
        found += [str(path) for path in Path("/sys/class/net").glob(f"{name}*")]
        found += [str(path) for path in Path("/run/netns").glob(f"{name}-*")]
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                command = (path / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(cluster.folder) in command:
                found.append(f"process {path.name}: {command}")
    return found


def until_gone(cluster: Up, within_s: float = 10.0) -> None:
    """Wait until nothing is left: a namespace's links go in the kernel's own time."""
    deadline = time.monotonic() + within_s
    while left := left_of(cluster):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_newcomer_calls_models_and_nothing_is_left_behind(tmp_path: Path) -> None:
    models = [f"m{number}" for number in range(6)]
    with up(tmp_path, "--journal") as cluster:
        asyncio.run(cluster.apply(*map(function, models)))
        client = openai.OpenAI(
            base_url=f"{cluster.gateway}/v1", api_key=cluster.key, max_retries=0, timeout=90
        )
        deadline = time.monotonic() + 10
        while {one.id for one in client.models.list()} != set(models):
            assert time.monotonic() < deadline
        for _ in range(2):
            for model in models:
                stream = client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "hi"}],
                    max_tokens=3,
                    stream=True,
                )
                pieces = [piece for piece in stream if piece.choices]
                assert {piece.model for piece in pieces} == {model}
                assert pieces[-1].choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="none", prompt="hi")
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="ix_wrong").completions.create(model="m0", prompt="hi")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{cluster.gateway}/funccall/public/demo/m0/health")
        logs = "".join(path.read_text() for path in cluster.folder.glob("*.log"))
        assert cluster.key not in logs
    until_gone(cluster)
    replayed = subprocess.run(
        (sys.executable, "-m", "inferx", "replay-journal", "--json", cluster.folder / "journals"),
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert sorted(one["machine"] for one in told) == ["agent", "router", "scheduler"]
    assert all(one["divergence"] is None for one in told)


def test_who_presses_ctrl_c_again_and_again_leaves_nothing_behind_either(tmp_path: Path) -> None:
    models = [f"m{number}" for number in range(6)]
    with up(tmp_path) as cluster:
        asyncio.run(cluster.apply(*map(function, models)))
        for model in models:
            cluster.until_answers(model, 60)
        up_id = cluster.process.pid
        while cluster.process.poll() is None:
            # A terminal interrupts all of its foreground group.
            with suppress(ProcessLookupError, FileNotFoundError):
                children = Path(f"/proc/{up_id}/task/{up_id}/children").read_text().split()
                for pid in (*map(int, children), up_id):
                    if os.getpgid(pid) == os.getpgid(up_id):
                        os.kill(pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                cluster.process.wait(0.2)
    until_gone(cluster)
    assert "ending" in (tmp_path / "up.log").read_text()


@pytest.mark.parametrize(
    ("host", "start"), [("1TiB", "starts_resume"), ("12GiB", "starts_restore-nvme")]
)
def test_many_who_ask_for_one_frozen_function_at_once_wake_it_once(
    tmp_path: Path, host: str, start: str
) -> None:
    asked = 200
    with up(tmp_path, "--host", host, gpus="1x16GiB") as cluster:
        both = [function(name) for name in ("one", "another")]
        for each in both:
            each.object["spec"]["policy"]["Obj"]["queue_len"] = asked
        asyncio.run(cluster.apply(*both))
        cluster.until_answers("one", 60)
        # There is room for one: it sleeps in host memory, or on disk where that is too small.
        cluster.until_answers("another", 60)
        before = counters(cluster)
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(cluster.ask("one", tokens=1)[0]))
            for _ in range(asked)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * asked
        after = counters(cluster)
        begun = {name: after[name] - before.get(name, 0) for name in after if "starts" in name}
        assert {name: count for name, count in begun.items() if count} == {start: 1}
    until_gone(cluster)


def counters(cluster: Up) -> dict[str, int]:
    """Return what the leader has counted."""
    request = urllib.request.Request(
        f"{cluster.gateway}/view/", headers={"Authorization": f"Bearer {cluster.key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, int] = json.load(answer)["counters"]
    return told


@pytest.mark.parametrize("killed", ["scheduler", "gateway", "node-0", "state"])
def test_a_service_that_is_killed_comes_back_and_warm_pods_stay(
    tmp_path: Path, killed: str
) -> None:
    with up(tmp_path) as cluster:
        asyncio.run(cluster.apply(function("one")))
        cluster.until_answers("one", 30)
        before = sorted(path.name for path in (cluster.folder / "node-0" / "pods").glob("*"))
        cluster.kill(killed)
        cluster.until_ready(killed, BACK_S)
        cluster.until_answers("one", BACK_S)
        after = sorted(path.name for path in (cluster.folder / "node-0" / "pods").glob("*"))
        assert after == before
    until_gone(cluster)


def test_inv_8_a_leader_that_is_paused_past_its_lease_is_followed_no_more(tmp_path: Path) -> None:
    with up(tmp_path, "--journal") as cluster:
        asyncio.run(cluster.apply(function("one")))
        cluster.until_answers("one", 30)
        with cluster.another("scheduler", "--journal", str(cluster.folder / "journals")):
            os.kill(cluster.pid("scheduler"), signal.SIGSTOP)
            try:
                # The warm one is served at once; who is new needs a leader that decides.
                assert cluster.ask("one", timeout_s=5)[0] == 200
                asyncio.run(cluster.apply(function("two")))
                cluster.until_answers("two", BACK_S)
            finally:
                os.kill(cluster.pid("scheduler"), signal.SIGCONT)
            time.sleep(1)
            assert cluster.ask("one")[0] == 200
            assert cluster.ask("two")[0] == 200
            assert "epoch 1" in (cluster.folder / "scheduler.log").read_text()
        cluster.until_answers("two", BACK_S)
        pods = sorted(path.name for path in (cluster.folder / "node-0" / "pods").glob("*"))
        assert len(pods) == 2
    until_gone(cluster)
    journals = sorted(path.name for path in (cluster.folder / "journals").glob("scheduler-*"))
    assert journals[:2] == ["scheduler-1.journal", "scheduler-2.journal"]
    for journal in (cluster.folder / "journals").iterdir():
        assert replayed(journal, load_bundle)[3] is None


def test_services_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as cluster:
        children = [cluster.pid(name) for name in cluster.processes]
        cluster.process.kill()
        cluster.process.wait()
        deadline = time.monotonic() + 20
        # Where this process collects orphans, they stay as zombies.
        while any(procfs.started(pid) for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_who_starts_again_where_one_was_killed_leaves_nothing_of_either(tmp_path: Path) -> None:
    with up(tmp_path) as cluster:
        asyncio.run(cluster.apply(function("m0")))
        cluster.until_answers("m0", 60)
        children = [cluster.pid(name) for name in cluster.processes]
        cluster.process.kill()
        cluster.process.wait()
    deadline = time.monotonic() + 20
    while any(procfs.started(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed = [path.read_text() for path in sorted(cluster.folder.glob("node-*.toml"))]
    (tmp_path / "up.json").unlink()
    with up(tmp_path) as cluster:
        assert [path.read_text() for path in sorted(cluster.folder.glob("node-*.toml"))] == killed
        cluster.until_answers("m0", 60)
    until_gone(cluster)
