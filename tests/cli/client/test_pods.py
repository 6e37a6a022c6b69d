"""Pods by command line: what they wrote, while they run and after, and their end."""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest


def ask(cluster, tenant, tokens=4):
    """Ask the function f for a completion; return the status and what was answered."""
    request = urllib.request.Request(
        f"{cluster.gateway}/funccall/{tenant}/chat/f/v1/completions",
        json.dumps(
            {"model": "f", "prompt": "hi", "max_tokens": tokens, "ignore_eos": True}
        ).encode(),
        {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


class Asking(threading.Thread):
    """A request that takes long, and what became of it."""

    def __init__(self, cluster, tenant, tokens):
        super().__init__()
        self.asked = (cluster, tenant, tokens)
        self.told = None
        self.start()

    def run(self):
        self.told = ask(*self.asked)


def until(fits):
    deadline = time.monotonic() + 60
    while not (found := fits()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture
def served(cluster, good, stated):
    """A function with a pod that has served; return the pod's number."""
    good("apply", "-f", stated.write("f"))
    assert ask(cluster, stated.tenant)[0] == 200
    return pods(cluster, stated)[0]["pod"]


def view(cluster, path):
    request = urllib.request.Request(
        f"{cluster.gateway}{path}", headers={"Authorization": f"Bearer {cluster.key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def pods(cluster, stated):
    return view(cluster, f"/pods/{stated.tenant}/")


def serving(cluster, stated):
    return [one for one in pods(cluster, stated) if one["leased_slots"]]


def test_what_a_pod_wrote_is_read_while_it_runs_and_after_its_end(
    cluster, call, good, stated, served
):
    name = f"{stated.tenant}/chat/f"
    text = good("logs", name)
    assert text.startswith("f listens on ")
    assert good("logs", served) == text
    assert good("logs", name, "--tail", 1) == text.splitlines(keepends=True)[-1]
    assert good("logs", name, "--stream", "stderr", "--tail", 0) == ""
    assert call("logs", name, "--previous")[0] == 1
    words = (sys.executable, "-m", "inferx", "logs", "-f", name)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as following:
        first = following.stdout.readline()
        assert good("delete", "pod", served) == f"pod {served} is ending\n"
        # It ends when the pod does, with all that the pod wrote.
        assert (first + following.stdout.read()).startswith(text)
        assert following.wait(30) == 0
    until(lambda: not pods(cluster, stated))
    assert good("logs", name, "--previous").startswith(text)
    status, out, err = call("logs", name)
    assert (status, err) == (0, f"pod {served}, which has ended\n")
    assert out.startswith(text)
    assert ask(cluster, stated.tenant)[0] == 200
    (another,) = pods(cluster, stated)
    assert another["pod"] != served
    assert good("logs", name).startswith("f listens on ")
    assert good("logs", name, "--previous") == out


def test_whom_a_pod_serves_is_served_before_it_ends(cluster, good, stated, served):
    asking = Asking(cluster, stated.tenant, 200)
    until(lambda: serving(cluster, stated))
    good("delete", "pod", served)
    asking.join()
    status, told = asking.told
    assert status == 200
    assert told["usage"]["completion_tokens"] == 200
    until(lambda: all(one["pod"] != served for one in pods(cluster, stated)))


def test_at_once_whom_a_pod_serves_fails_once_and_may_ask_again(cluster, good, stated, served):
    asking = Asking(cluster, stated.tenant, 5_000)
    until(lambda: serving(cluster, stated))
    assert good("delete", "pod", served, "--now") == f"pod {served} is ending now\n"
    asking.join()
    status, told = asking.told
    assert (status, told["error"]["code"]) == (502, "pod_failed")
    assert ask(cluster, stated.tenant)[0] == 200
    assert all(one["pod"] != served for one in pods(cluster, stated))
    counters = view(cluster, "/view/")["counters"]
    assert counters["kills"] >= 1
    about = good("explain", "pod", served)
    assert "ended by who runs the cluster" in about


@pytest.mark.usefixtures("cluster")
def test_only_who_administers_a_function_ends_its_pods_and_readers_read(
    call, stated, served, monkeypatch
):
    own = call("keys", "create", "own", "--tenant", stated.tenant, "--level", "read")[1].strip()
    asks = call("keys", "create", "asks", "--tenant", stated.tenant)[1].strip()
    # A name that begins alike is another's.
    full = call("keys", "create", "other", "--tenant", stated.tenant + "0", "--level", "full")[1]
    name = f"{stated.tenant}/chat/f"
    monkeypatch.setenv("INFERX_API_KEY", own)
    assert call("logs", served)[0] == 0
    status, _, err = call("delete", "pod", served)
    assert (status, err.count("\n")) == (2, 1)
    assert "no right" in err
    for key, told in ((asks, "no right"), (full.strip(), "no right")):
        monkeypatch.setenv("INFERX_API_KEY", key)
        status, out, err = call("logs", name)
        assert (status, out) == (2, "")
        assert told in err
    assert call("logs", served)[0] == 1
    assert call("delete", "pod", served)[0] == 1


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("delete", "pod", "999999"), 1, "pod 999999: not there"),
        (("delete", "pod", "f"), 2, "expected the pod's number"),
        (("delete", "pod", "1", "2"), 2, "expected the pod's number"),
        (("delete", "pod", "1", "--cascade"), 2, "expected the pod's number"),
        (("delete", "function", "a/b/c", "--now"), 2, "--now is of pods"),
        (("logs", "999999"), 1, "output of pod 999999: no node keeps any"),
        (("logs", "none/chat/f"), 1, "output of a pod of function/none/chat/f"),
        (("logs", "12", "--previous"), 2, "--previous is of a function"),
        (("logs", "f"), 2, "f"),
        (("logs", "a/b", "--tail", "-1"), 2, "-1"),
    ],
)
def test_what_cannot_be_is_one_clear_line(call, words, status, says):
    found, out, err = call(*words)
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert says in err


def test_pods_and_snapshots_are_listed_like_objects(cluster, call, good, stated, served):
    place = f"{stated.tenant}/chat"
    head, row = good("list", "pods", stated.tenant).splitlines()
    assert head.split() == ["POD", "STATE", "FUNCTION", "NODE", "GPUS", "SLOTS", "FROM"]
    number, state, name, node, gpu, slots, start = row.split()
    assert (number, state, node) == (str(served), "ready", "node-0")
    assert name.startswith(f"{place}/f@")
    assert gpu in {"0", "1"}
    assert slots.endswith("/8")
    assert start == "cold"
    assert good("list", "pod", place, "-o", "name") == f"{served}\n"
    [told] = json.loads(good("list", "pods", stated.tenant, "chat", "-o", "json"))
    assert told["function"] == name
    assert good("list", "pods", f"{stated.tenant}/other").split() == head.split()
    assert good("list", "snapshots", place).split() == ["FUNCTION", "NODE", "TIER"]
    assert call("list", "pods", "-l", "a=b")[0] == 2
