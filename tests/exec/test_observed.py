"""A cluster, looked at: traces from client to pod, logs without secrets, a request explained."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from agent_node import needs_node
from cluster_up import function, up
from otlp_receiver import receiver

pytestmark = needs_node

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQtc3ViamVjdCJ9.c2VjcmV0LXNpZ25hdHVyZQ"
BODY = "what-the-client-said-to-the-model"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One GPU with room for one of two functions: who comes second makes the first one leave."""
    folder = tmp_path_factory.mktemp("observed")
    with receiver() as there:
        options = ("--otlp", there.url, "--trace-ratio", "0", "--log-json")
        with up(folder, *options, gpus="1x16GiB") as cluster:
            asyncio.run(cluster.apply(function("one"), function("two")))
            yield SimpleNamespace(cluster=cluster, there=there, folder=folder)


def call(seen, name, request_id, *, key=None, trace="", query=""):
    """Ask for a completion; return the status."""
    cluster = seen.cluster
    body = {"model": name, "prompt": BODY, "max_tokens": 4}
    headers = {
        "Authorization": f"Bearer {key or cluster.key}",
        "Content-Type": "application/json",
        "X-Request-Id": request_id,
    } | ({"traceparent": f"00-{trace}-{PARENT}-01"} if trace else {})
    url = f"{cluster.gateway}/funccall/public/demo/{name}/v1/completions{query}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        answer = urllib.request.urlopen(request, timeout=90)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert answer.headers["X-Request-Id"] == request_id
        return answer.status


def woken(seen, name, request_id, **more):
    """Ask until the gateway knows the function."""
    while (status := call(seen, name, request_id, **more)) == 404:
        pass
    return status


def api(seen, method, path, body=None, key=None):
    headers = {"Authorization": f"Bearer {key or seen.cluster.key}"}
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{seen.cluster.gateway}{path}", sent, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def reader_of(seen, tenant):
    asked = {"tenant": tenant, "namespace": "*", "level": "read", "label": "reads"}
    return api(seen, "PUT", "/apikey/", asked)[1]["key"]


def explain(seen, *words, key=None):
    ran = subprocess.run(
        (sys.executable, "-m", "inferx", "explain", "request", *words),
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"INFERX_SERVER": seen.cluster.gateway, "INFERX_API_KEY": key or seen.cluster.key},
    )
    return ran.returncode, ran.stdout, ran.stderr


def tree(spans, trace):
    """Return a trace's spans, once all but the caller's are there: each has its parent."""
    mine = {span.id: span for span in spans if span.trace == trace}
    whole = all(span.parent in mine or span.parent in {"", PARENT} for span in mine.values())
    return mine if whole else {}


def path_of(mine, name):
    """Return the names from a span up to the first of its trace."""
    (one,) = [span for span in mine.values() if span.name == name]
    names = [f"{one.service}: {one.name}"]
    while one.parent in mine:
        one = mine[one.parent]
        names.append(f"{one.service}: {one.name}")
    return names


ROOT = "inferx-gateway: POST /funccall/{tenant}/{namespace}/{function}"


def test_a_cold_request_is_one_tree_from_the_gateway_to_the_pod(seen):
    assert woken(seen, "one", "cold-1", trace=TRACE) == 200
    spans = seen.there.until(
        lambda spans: (
            {"pod", "phase health", "lease"} <= {s.name for s in tree(spans, TRACE).values()}
        )
    )
    mine = tree(spans, TRACE)
    assert path_of(mine, "pod") == ["inferx-pod: pod", "inferx-gateway: upstream", ROOT]
    assert path_of(mine, "phase health") == [
        "inferx-agent: phase health",
        "inferx-agent: create",
        "inferx-scheduler: command create",
        "inferx-scheduler: place",
        "inferx-scheduler: lease",
        "inferx-gateway: queue",
        ROOT,
    ]
    about = [span.attributes.get("inferx.function") for span in mine.values()]
    assert set(about) <= {"one", None}


def test_a_start_that_makes_room_shows_who_left_though_no_client_asked_for_a_trace(seen):
    assert woken(seen, "one", "before") == 200
    assert woken(seen, "two", "evicts") == 200

    def done(spans):
        mine = [s for s in spans if s.attributes.get("inferx.request") == "evicts"]
        return bool(mine) and {"evict", "pod", "create"} <= {
            s.name for s in tree(spans, mine[0].trace).values()
        }

    spans = seen.there.until(done)
    trace = next(s.trace for s in spans if s.attributes.get("inferx.request") == "evicts")
    mine = tree(spans, trace)
    left = [s for s in mine.values() if s.service == "inferx-agent" and s.name in LEAVING]
    assert left
    assert {span.attributes["inferx.function"] for span in left} == {"one"}


LEAVING = {"suspend", "snapshot", "stop"}


def test_a_cold_request_is_explained_to_the_cluster_s_readers(seen):
    # A leader forgets with its term, and on a busy machine a term may be short.
    for attempt in range(6):
        name, request = ("one", "two")[attempt % 2], f"why-{attempt}"
        woken(seen, name, request)
        told = json.loads(explain(seen, request, "-o", "json")[1])
        assert (told["status"], told["state"]) == (200, "ended")
        starts = [one for one in told["decisions"] if one["kind"] in {"place", "evict"}]
        if starts and told["start"]:
            break
    status, out, err = explain(seen, request)
    assert (status, err) == (0, "")
    assert out.startswith(f"request {request} of public/demo/{name}: 200\n")
    assert "it came" in out
    assert " GPUs could take it" in out
    assert told["gateway"]
    assert starts[-1]["pod"] == told["pod"]
    assert starts[-1]["explanation"]["gpus"] == 1
    assert told["counterfactual"]
    assert [phase["phase"] for phase in told["start"]["phases"]]


def test_a_tenant_s_reader_sees_its_own_request_and_no_other_tenant_does(seen):
    woken(seen, "one", "whose-1")
    own, other = reader_of(seen, "public"), reader_of(seen, "public0")
    status, told = api(seen, "GET", "/request/whose-1/", key=own)
    assert status == 200
    assert (told["request"], told["status"]) == ("whose-1", 200)
    for decision in told["decisions"]:
        assert not decision.keys() & {"explanation", "victims"}
    for key, wanted in ((other, "whose-1"), (other, "none"), (own, "none")):
        status, answer = api(seen, "GET", f"/request/{wanted}/", key=key)
        assert (status, answer["error"]["code"]) == (404, "not_found")
        assert "not among those" in answer["error"]["message"]
    assert api(seen, "GET", "/request/whose-1/", key="ix_none")[0] == 401
    status, out, err = explain(seen, "whose-1", key=other)
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_logs_have_ids_and_no_secrets(seen):
    woken(seen, "two", "logged-1")
    mine = reader_of(seen, "public")
    assert call(seen, "one", "r1", key="ix_wrong-but-secret") == 401
    assert call(seen, "one", "r2", key=JWT) == 401
    assert call(seen, "one", "r3", key=mine, query=f"?token={JWT}") == 200
    explain(seen, "r1")
    logs = {path.name: path.read_text() for path in (seen.folder / "up").glob("*.log")}
    logs["up.log"] = (seen.folder / "up.log").read_text()
    spans = json.dumps([span.attributes for span in seen.there.spans])
    for secret in (seen.cluster.key, mine, "wrong-but-secret", JWT, BODY, "secret-sub", "Bearer "):
        assert secret not in spans
        for name, text in logs.items():
            assert secret not in text, name
    lines = {
        name: [json.loads(one) for one in text.splitlines() if one.startswith("{")]
        for name, text in logs.items()
    }
    for name, service in (("gateway", "gateway"), ("scheduler", "scheduler"), ("node-0", "agent")):
        assert {one["service"] for one in lines[f"{name}.log"]} == {service}
    served = next(one for one in lines["gateway.log"] if one.get("request") == "cold-1")
    assert served["trace"] == TRACE
    for log in ("scheduler.log", "node-0.log"):
        found = [one for one in lines[log] if one.get("trace") == TRACE]
        assert found, log
        for one in found:
            assert (one["tenant"], one["namespace"], one["function"]) == ("public", "demo", "one")
            assert (one["pod"], one["node"]) == (served["pod"], "node-0")
            assert one["epoch"] >= 1
