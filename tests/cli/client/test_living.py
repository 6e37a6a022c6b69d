"""What a cluster does, by command line: waiting, watching, and looking at all of it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest


def ask(cluster, tenant, name):
    """Ask a function for a completion."""
    request = urllib.request.Request(
        f"{cluster.gateway}/funccall/{tenant}/chat/{name}/v1/completions",
        json.dumps({"model": name, "prompt": "hi", "max_tokens": 4}).encode(),
        {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=90) as answer:
        return answer.status


def _to_its_end(terminal, process):
    """Return what a terminal shows until a process has ended, and all that it wrote is read."""
    shown = b""
    deadline = time.monotonic() + 20
    while True:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65_536)
        elif process.poll() is not None:
            return shown
        assert time.monotonic() < deadline, shown


def test_a_function_is_waited_for_through_its_life(cluster, call, good, stated):
    good("apply", "-f", stated.write("f"))
    name = f"{stated.tenant}/chat/f"
    status, _, err = call("wait", name, "--timeout", "0")
    assert (status, err.count("\n")) == (1, 1)
    assert "not ready after 0 s: it has no pod" in err
    asking = threading.Thread(target=ask, args=(cluster, stated.tenant, "f"))
    asking.start()
    assert good("wait", "--for", "ready", name, "--timeout", "60") == f"function/{name} is ready\n"
    asking.join()
    good("wait", "--for", "idle", name, "--timeout", "30")
    assert name in good("top")
    assert "node-0" in good("top", "--once")
    good("delete", "fn", name)
    good("wait", "--for", "gone", name, "--timeout", "60")


def test_what_stands_in_answers_to_its_engine_s_name_for_the_model(cluster, good, stated):
    model = f"Acme/{stated.tenant}-7B"
    # As function files state it, numbers in quotes, for they are also sent by a page.
    sample = {"model": model, "prompt": "hi", "max_tokens": "3", "temperature": "0"}
    good("apply", "-f", stated.write("f", commands=["--model", model, "--max-model-len", "2000"]))
    good("wait", "--for", "idle", f"{stated.tenant}/chat/f", "--timeout", "30")
    for name in (model, f"{stated.tenant}/chat/f"):
        request = urllib.request.Request(
            f"{cluster.gateway}/v1/completions",
            json.dumps(sample | {"model": name}).encode(),
            {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=90) as answer:
            assert json.load(answer)["model"] == name


def test_a_watch_tells_what_there_is_and_what_changes_until_ctrl_c(cluster, good, stated):
    file = stated.write("f")
    good("apply", "-f", file)
    words = (sys.executable, "-m", "inferx", "watch", "functions", stated.tenant)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        try:
            name = f"function/{stated.tenant}/chat/f"
            assert watching.stdout.readline().split() == ["put", name]
            stated.write("f", commands=["--model", "other"])
            good("apply", "-f", file)
            assert watching.stdout.readline().split() == ["put", name]
            good("delete", "fn", f"{stated.tenant}/chat/f")
            assert watching.stdout.readline().split() == ["delete", name]
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.stderr.read().strip() == "inferx: interrupted"
        assert watching.wait(10) == 130


def test_a_watch_outlives_a_gateway_and_tells_nothing_twice(cluster, good, stated):
    file = stated.write("f")
    good("apply", "-f", file)
    words = (sys.executable, "-m", "inferx", "watch", "functions", stated.tenant, "-o", "json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching:
        try:
            first = json.loads(watching.stdout.readline())
            cluster.kill("gateway")
            cluster.until_ready("gateway", 30)
            stated.write("f", commands=["--model", "other"])
            good("apply", "-f", file)
            second = json.loads(watching.stdout.readline())
        finally:
            watching.send_signal(signal.SIGINT)
    assert (first["event"], second["event"]) == ("put", "put")
    assert first["object"]["object"]["spec"]["commands"] == ["--model", "f"]
    assert second["object"]["object"]["spec"]["commands"] == ["--model", "other"]


@pytest.mark.usefixtures("cluster")
def test_a_terminal_shows_the_cluster_until_ctrl_c():
    terminal, end = pty.openpty()
    words = (sys.executable, "-m", "inferx", "top", "-n", "0.2")
    with subprocess.Popen(
        words, stdin=end, stdout=end, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}
    ) as watching:
        shown = b""
        # The first look has it twice, for two GPUs: Ctrl-C comes while that is drawn.
        while shown.count(b"node-0") < 2:
            assert select.select([terminal], [], [], 20)[0], shown
            shown += os.read(terminal, 65_536)
        watching.send_signal(signal.SIGINT)
        rest = _to_its_end(terminal, watching)
        assert watching.stderr.read().strip() == b"inferx: interrupted"
        assert watching.wait(10) == 130
    # It leaves the terminal's other screen, and shows the cursor again.
    assert b"\x1b[?1049l" in rest
    assert b"\x1b[?25h" in rest
    os.close(terminal)
    os.close(end)


def test_decisions_say_why(cluster, good, stated):
    good("apply", "-f", stated.write("f"))
    name = f"{stated.tenant}/chat/f"
    assert ask(cluster, stated.tenant, "f") == 200
    told = good("explain", "function", name)
    assert f"{name}@" in told
    pod = told.partition("  pod ")[2].partition(":")[0]
    about = good("explain", "pod", pod)
    assert about.startswith(f"pod {pod}: ready on node-0, GPU ")
    assert "placed on node-0, cold" in about
    assert " GPUs could take it" in about


@pytest.mark.usefixtures("cluster")
def test_a_tenant_s_own_sees_its_functions_and_no_nodes(call, good, stated, monkeypatch):
    good("apply", "-f", stated.write("f"))
    _, key, _ = call("keys", "create", "own", "--tenant", stated.tenant, "--level", "read")
    monkeypatch.setenv("INFERX_API_KEY", key.strip())
    good("wait", "--for", "idle", f"{stated.tenant}/chat/f", "--timeout", "30")
    page = good("top")
    assert f"{stated.tenant}/chat/f" in page
    assert "node-0" not in page
