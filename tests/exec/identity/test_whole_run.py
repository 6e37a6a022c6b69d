"""A whole cluster, called by good keys and bad ones: what it writes down, and what never."""

import asyncio
import json
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_node import needs_node
from cluster_up import Up, function, up
from oidc_issuer import AUDIENCE, Issuer, rsa_pair
from postgres import PASSWORD, Postgres, missing_postgres, postgres

pytestmark = needs_node

SOON_S = 30.0


@contextmanager
def issuer_on_a_thread() -> Iterator[Issuer]:
    issuer = Issuer(PAIR)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(issuer.__aenter__(), loop).result(10)
        yield issuer
        asyncio.run_coroutine_threadsafe(issuer.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


PAIR = rsa_pair("one")


def ask(
    cluster: Up, method: str, path: str, credential: str = "", body: Any = None, **headers: str
) -> tuple[int, Any]:
    """Ask the gateway for anything."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{cluster.gateway}{path}", sent, method=method)
    request.add_header("Content-Type", "application/json")
    if credential:
        request.add_header("Authorization", f"Bearer {credential}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def until(condition: Any, *, within_s: float = SOON_S) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def command_lines(cluster: Up) -> str:
    """Return the command lines of this cluster's processes, as anybody here can read them."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                words = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if str(cluster.folder).encode() in words:
                found.append(words.decode(errors="replace"))
    assert len(found) >= 4
    return "\n".join(found)


COMPLETION = {"model": "one", "prompt": "hi", "max_tokens": 2}
ONE = "/funccall/public/demo/one/v1/completions"


def test_no_credential_is_in_a_log_a_database_or_a_command_line(tmp_path: Path) -> None:
    secrets: list[str] = []
    with issuer_on_a_thread() as issuer:
        options = ("--journal", "--log-json", "--oidc-issuer", issuer.url)
        with up(tmp_path, *options, "--oidc-audience", AUDIENCE) as cluster:
            asyncio.run(cluster.apply(function("one")))
            cluster.until_answers("one", 60)
            secrets.append(cluster.key)
            asked = {"tenant": "public", "namespace": "demo", "level": "inference", "label": "ci"}
            issued = ask(cluster, "PUT", "/apikey/", cluster.key, asked)[1]
            wrong = f"ix_{issued['id']}_{'5a' * 32}"
            role = {"roles": ["/namespace/user/public/demo"]}
            good = issuer.token(PAIR, realm_access=role)
            late = issuer.token(PAIR, realm_access=role, exp=int(time.time()) - 600)
            stolen = issuer.token(rsa_pair("one"), realm_access=role)
            secrets += [issued["key"], wrong, good, late, stolen]
            until(lambda: ask(cluster, "GET", "/v1/models", issued["key"])[0] == 200)
            for who, status in (
                (issued["key"], 200), (good, 200), (wrong, 401), (late, 401), (stolen, 401),
            ):  # fmt: skip
                assert ask(cluster, "POST", ONE, who, COMPLETION)[0] == status
                assert ask(cluster, "PUT", "/object/", who, {"type": who})[0] in {400, 401}
            for who in list(secrets):
                misplaced(cluster, who)
            lines = command_lines(cluster)
            assert (
                ask(cluster, "DELETE", f"/apikey/public/demo/{issued['id']}/", cluster.key)[0]
                == 200
            )
            until(lambda: ask(cluster, "POST", ONE, issued["key"], COMPLETION)[0] == 401)
            # How an act ended follows it; that it was begun was written before.
            log = cluster.folder / "audit.db"
            until(lambda: ("revoke", "done") in {(one[2], one[4]) for one in events(log)})
            for killed in ("gateway", "scheduler"):
                cluster.kill(killed)
                cluster.until_ready(killed, SOON_S)
            cluster.until_answers("one", SOON_S)
        text = written(tmp_path)
        audit = events(log)
    for secret in secrets:
        # Also a part that is enough to guess nothing, and to tell whose it is.
        for shown in {secret, secret[-40:]}:
            assert shown not in lines
            assert not [name for name, content in text.items() if shown.encode() in content]
    # What was asked is there all the same.
    whats = {(what, action, outcome) for what, _, action, _, outcome, _ in audit}
    assert {
        ("act", "issue", "done"), ("act", "revoke", "done"),
        ("decision", "invoke", "allowed"), ("decision", "invoke", "denied"),
    } <= whats  # fmt: skip
    kinds = {action for what, _, action, *_ in audit if what == "scheduling"}
    assert {"lead", "place"} <= kinds
    assert all(name for what, _, action, name, *_ in audit if action == "place")


def misplaced(cluster: Up, secret: str) -> None:
    """Show a credential where it does not belong, as people do."""
    there = urllib.parse.quote(secret)
    ask(cluster, "GET", f"/funccall/{there}/demo/one/x")
    ask(cluster, "GET", f"/funccall/public/demo/{there}/x", cluster.key)
    ask(cluster, "GET", f"/object/function/public/demo/{there}/", cluster.key)
    ask(cluster, "DELETE", f"/apikey/public/demo/{there}/", cluster.key)
    ask(cluster, "POST", f"/drain/{there}/", cluster.key)
    ask(cluster, "GET", f"/v1/models?api_key={there}")
    ask(cluster, "POST", "/v1/completions", cluster.key, {"model": secret})
    ask(cluster, "POST", "/v1/completions", "", COMPLETION, X_Api_Key=secret, Api_Key=secret)
    ask(cluster, "POST", "/v1/completions", "", COMPLETION, Authorization=f"Basic {secret}")
    ask(cluster, "POST", ONE, secret + "x", COMPLETION)


def written(folder: Path) -> dict[str, bytes]:
    """Return all that a cluster has written, but the files that are there to hold its key."""
    meant = {"admin.key", "up.json"}
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in meant
    }


def events(path: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(path) as connection:
        wanted = "SELECT what, who, action, name, outcome, reason FROM inferx_audit"
        found = connection.execute(wanted).fetchall()
    connection.close()
    return found


# -- a real PostgreSQL ---
@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres())
def test_a_cluster_writes_to_postgresql_and_serves_on_while_that_is_away(
    tmp_path: Path, server: Postgres
) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    url = f"postgresql://inferx@127.0.0.1:{server.port}/postgres"
    with up(tmp_path, "--audit", f"{url}?password-file={password}") as cluster:
        asyncio.run(cluster.apply(function("one")))
        cluster.until_answers("one", 60)
        lines = command_lines(cluster)
        asked = {"tenant": "public", "namespace": "demo", "level": "read", "label": "first"}
        assert ask(cluster, "PUT", "/apikey/", cluster.key, asked)[0] == 201
        server.stop()
        # Requests go on; what would change who may do what does not.
        for _ in range(5):
            assert cluster.ask("one")[0] == 200
        status, told = ask(cluster, "PUT", "/apikey/", cluster.key, {**asked, "label": "unseen"})
        assert (status, told["error"]["code"]) == (503, "store_unavailable")
        server.start()
        until(
            lambda: (
                ask(cluster, "PUT", "/apikey/", cluster.key, {**asked, "label": "late"})[0] == 201
            )
        )
        until(lambda: calls(server) >= 6)
    assert PASSWORD not in lines
    logs = "".join(path.read_text() for path in cluster.folder.glob("*.log"))
    assert PASSWORD not in logs
    rows = rows_of(server)
    labels = {
        name for _, action, name, outcome, _ in rows if (action, outcome) == ("issue", "done")
    }
    assert labels == {"first", "late"}
    who = {who.partition("/")[0] for who, action, *_ in rows if action == "place"}
    assert who == {"scheduler"}


def rows_of(server: Postgres) -> list[Any]:
    engine = sa.create_engine(server.url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        wanted = "SELECT who, action, name, outcome, times FROM inferx_audit"
        found = [tuple(row) for row in connection.exec_driver_sql(wanted)]
    engine.dispose()
    return found


def calls(server: Postgres) -> int:
    return sum(
        times
        for _, action, _, outcome, times in rows_of(server)
        if (action, outcome) == ("invoke", "allowed")
    )
