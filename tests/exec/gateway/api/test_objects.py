"""The object API through the gateway's front: rights, revisions, bounds, and watches."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import aiohttp
import pytest
from api_bed import Bed, bed, function, run

from inferx.exec.state.objects.selector import Selection

ONE = "/object/function/t1/n/f/"


def test_an_object_is_created_read_updated_and_deleted():
    async def work(bed: Bed) -> None:
        made = await bed.ask("PUT", "/object/", bed.admin, function("f"))
        assert made.status == 201, made
        assert (await bed.ask("PUT", "/object/", bed.admin, function("f"))).code == "exists"
        read = await bed.ask("GET", ONE, bed.admin)
        assert read.told == made.told
        assert (await bed.ask("GET", ONE.rstrip("/"), bed.admin)).told == made.told
        changed = dict(read.told, labels={"a": "b"})
        written = await bed.ask("POST", "/object/", bed.admin, changed)
        assert written.status == 200
        assert written.told["revision"] > read.told["revision"]
        # Who read before the change does not undo it.
        late = await bed.ask("POST", "/object/", bed.admin, read.told)
        assert (late.status, late.code) == (409, "conflict")
        blind = dict(read.told)
        del blind["revision"]
        assert (await bed.ask("POST", "/object/", bed.admin, blind)).status == 400
        assert (await bed.ask("POST", "/object/?force=1", bed.admin, blind)).status == 200
        gone = await bed.ask("DELETE", f"{ONE}?revision=1", bed.admin)
        assert gone.code == "conflict"
        assert (await bed.ask("DELETE", ONE, bed.admin)).status == 200
        assert (await bed.ask("GET", ONE, bed.admin)).status == 404

    run(work)


def test_applying_twice_is_applying_once_and_a_tenant_goes_with_all_it_has():
    async def work(bed: Bed) -> None:
        told = [await bed.ask("POST", "/apply/", bed.admin, function("f")) for _ in range(2)]
        assert [one.told["outcome"] for one in told] == ["created", "unchanged"]
        place = "/object/tenant/system/system/t1/"
        assert (await bed.ask("DELETE", place, bed.admin)).code == "not_admitted"
        assert (await bed.ask("DELETE", f"{place}?cascade=1", bed.admin)).status == 200
        left = await bed.ask("GET", "/objects/function/", bed.admin)
        assert left.told["objects"] == []

    run(work)


def test_a_tenant_never_sees_another_whose_name_begins_alike():
    async def work(bed: Bed) -> None:
        for place in ("t1/n", "t10/n"):
            await bed.ask("PUT", "/object/", bed.admin, function("f", place))
        key = (await bed.key("full", "t1")).token
        for path in ("/objects/function/", "/objects/function/t1/", "/objects/function/t1/n/"):
            told = (await bed.ask("GET", path, key)).told["objects"]
            assert {one["tenant"] for one in told} == {"t1"}, path
        told = (await bed.ask("GET", "/objects/tenant/", key)).told["objects"]
        assert [one["name"] for one in told] == ["t1"]
        for path in (
            "/objects/function/t10/",
            "/objects/function/t10/n/",
            "/object/function/t10/n/f/",
            # What is not there is told no otherwise.
            "/object/function/t10/n/none/",
            "/pods/t10/",
            "/functions/t10/n/",
            "/apikey/?tenant=t10",
            "/nodes/",
            "/debug/router",
        ):
            assert (await bed.ask("GET", path, key)).code == "forbidden", path
        theirs = function("g", "t10/n")
        for method, path in (
            ("PUT", "/object/"),
            ("POST", "/apply/"),
            ("POST", "/object/?force=1"),
        ):
            assert (await bed.ask(method, path, key, theirs)).code == "forbidden"
        assert (await bed.ask("DELETE", "/object/function/t10/n/f/", key)).code == "forbidden"
        # Its own limits are not its to lift.
        own = await bed.ask("GET", "/object/tenant/system/system/t1/", key)
        assert (await bed.ask("POST", "/object/", key, own.told)).code == "forbidden"

    run(work)


def test_nobody_writes_or_reads_anything():
    async def work(bed: Bed) -> None:
        await bed.ask("PUT", "/object/", bed.admin, function("f"))
        before = (await bed.objects.list(Selection("function"))).revision
        asked = [
            ("PUT", "/object/", function("g")),
            ("POST", "/object/?force=1", function("f")),
            ("POST", "/apply/", function("g")),
            ("DELETE", ONE, None),
            ("GET", ONE, None),
            ("GET", "/objects/function/", None),
            ("GET", "/objects/node_info/", None),
            ("GET", "/view/", None),
            ("GET", "/nodes/", None),
            ("GET", "/pods/", None),
            ("GET", "/apikey/", None),
            ("PUT", "/apikey/", {"tenant": "*", "namespace": "*", "level": "full", "label": ""}),
            ("POST", "/drain/here/", None),
        ]
        for method, path, body in asked:
            told = await bed.ask(method, path, body=body)
            assert (told.status, told.code) == (401, "unauthenticated"), path
            assert told.headers["WWW-Authenticate"] == "Bearer"
        assert (await bed.objects.list(Selection("function"))).revision == before

    run(work)


def test_keys_are_good_for_what_they_say_and_until_they_are_not():
    async def work(bed: Bed) -> None:
        reads = (await bed.key("read", "t1")).token
        assert (await bed.ask("GET", "/objects/function/t1/", reads)).status == 200
        assert (await bed.ask("PUT", "/object/", reads, function("f"))).code == "forbidden"
        calls = (await bed.key("inference", "t1")).token
        assert (await bed.ask("GET", "/objects/function/t1/", calls)).code == "forbidden"
        past = (await bed.key("full", "t1", expires_ns=1)).token
        while (told := await bed.ask("GET", "/objects/function/t1/", past)).status == 200:
            pass
        assert told.told["error"]["message"] in {"expired", "unknown key"}
        asked = {"tenant": "t1", "namespace": "n", "level": "full", "label": "mine"}
        issued = await bed.ask("PUT", "/apikey/", bed.admin, asked)
        assert issued.status == 201
        key, number = issued.told["key"], issued.told["id"]
        while (await bed.ask("GET", "/objects/function/t1/n/", key)).status != 200:
            pass
        assert (await bed.ask("PUT", "/object/", key, function("f"))).status == 201
        # A namespace's key issues none for its tenant.
        wider = dict(asked, namespace="*")
        assert (await bed.ask("PUT", "/apikey/", key, wider)).code == "forbidden"
        listed = await bed.ask("GET", "/apikey/?tenant=t1", bed.admin)
        assert number in {one["id"] for one in listed.told}
        assert "sha256" not in json.dumps(listed.told)
        assert key not in json.dumps(listed.told)
        revoked = await bed.ask("DELETE", f"/apikey/t1/n/{number}/", bed.admin)
        assert revoked.told["revoked_ns"] > 0
        while (told := await bed.ask("GET", "/objects/function/t1/n/", key)).status == 200:
            pass
        assert told.told["error"]["message"] == "revoked"

    run(work)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/object/", b"{", 400),
        ("PUT", "/object/", b"\xff", 400),
        ("PUT", "/object/", b"[" * 100_000, 400),
        ("PUT", "/object/", b"null", 400),
        ("PUT", "/object/", b'{"type": "function"}', 400),
        ("PUT", "/object/", b" " * 3_000_000, 413),
        ("POST", "/object/?revision=x", function("f"), 400),
        ("POST", "/object/?revision=1&force=1", function("f"), 400),
        ("GET", "/object/nothing/t/n/f/", None, 400),
        ("GET", "/object/function/t/n/a%2Fb/", None, 400),
        ("GET", "/objects/function/?labels=%21%21", None, 400),
        ("GET", "/objects/function/?watch=2", None, 400),
        ("GET", "/objects/function/?after=1", None, 400),
        ("PUT", "/apikey/", b"{}", 400),
        ("PUT", "/apikey/", b'{"\x80":1}', 400),
        ("PUT", "/apikey/", {"tenant": "*", "namespace": "n", "level": "full", "label": ""}, 400),
        ("DELETE", "/apikey/t1/n/0/", None, 400),
        ("PATCH", "/object/", b"", 405),
        ("GET", "/nothing/", None, 404),
        ("GET", "/nodes/", None, 503),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(method, path, body, status):
    async def work(bed: Bed) -> None:
        told = await bed.ask(method, path, bed.admin, body)
        assert told.status == status, told
        assert set(told.told["error"]) == {"message", "type", "param", "code"}
        assert "\n" not in told.told["error"]["message"]

    run(work)


def test_a_watch_tells_what_there_is_then_what_changes_and_ends_with_its_key():
    async def work(bed: Bed) -> None:
        await bed.ask("PUT", "/object/", bed.admin, function("f", team="a"))
        asked = {"tenant": "t1", "namespace": "n", "level": "full", "label": ""}
        issued = (await bed.ask("PUT", "/apikey/", bed.admin, asked)).told
        while (await bed.ask("GET", "/objects/function/t1/n/", issued["key"])).status != 200:
            pass
        headers = {"Authorization": f"Bearer {issued['key']}"}
        path = "/objects/function/t1/n/?watch=1&labels=team=a"
        async with bed.http.get(f"{bed.url}{path}", headers=headers) as answer:
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            lines = (json.loads(line) async for line in answer.content)

            async def until(event: str) -> dict:
                async for line in lines:
                    if line["event"] == event:
                        return line
                raise AssertionError(event)

            assert (await until("put"))["object"]["name"] == "f"
            await bed.ask("PUT", "/object/", bed.admin, function("g", team="a"))
            await bed.ask("PUT", "/object/", bed.admin, function("h", "t10/n", team="a"))
            assert (await until("put"))["object"]["name"] == "g"
            await bed.ask("POST", "/object/?force=1", bed.admin, function("g", team="b"))
            assert (await until("delete"))["key"]["name"] == "g"
            await bed.ask("DELETE", f"/apikey/t1/n/{issued['id']}/", bed.admin)
            await bed.ask("PUT", "/object/", bed.admin, function("i", team="a"))
            assert (await until("error"))["error"]["message"] == "revoked"

    run(work)


def test_acts_are_on_record_before_they_are_done(tmp_path: Path):
    async def work(bed: Bed) -> None:
        await bed.ask("PUT", "/object/", bed.admin, function("f"))
        assert (await bed.ask("PUT", "/object/", body=function("g"))).status == 401

    run(work, tmp_path / "audit.db")
    rows = sqlite3.connect(tmp_path / "audit.db").execute(
        "select action, type, name, outcome from inferx_audit where what = 'act' order by number"
    )
    assert rows.fetchall() == [
        ("create", "function", "f", "begun"),
        ("create", "function", "f", "done"),
    ]


def test_health_is_told_to_all_and_readiness_says_what_is_missing():
    async def work(bed: Bed) -> None:
        assert (await bed.ask("GET", "/healthz")).status == 200
        told = await bed.ask("GET", "/readyz")
        assert told.status == 503
        assert told.told["checks"] == {
            "keys": True,
            "objects": True,
            "scheduler": False,
            "store": True,
        }

    run(work)


def test_a_gateway_that_ends_does_not_wait_for_who_watches():
    async def main() -> float:
        async with aiohttp.ClientSession() as http, bed() as made:
            headers = {"Authorization": f"Bearer {made.admin}"}
            url = f"{made.url}/objects/function/?watch=1"
            answer = await http.get(url, headers=headers)
            assert json.loads(await answer.content.readline())["event"] == "bookmark"
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(main()) < 5


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path):
    async def work(made: Bed) -> None:
        told = await made.ask("PUT", "/object/", made.admin, function("f"))
        assert (told.status, told.code) == (503, "store_unavailable")
        assert (await made.ask("GET", ONE, made.admin)).status == 404

    # A folder is no database.
    run(work, tmp_path)
