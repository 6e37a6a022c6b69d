"""Pods' output through the gateway's front: whose it is, how it breaks off, and slow readers."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import grpc
import pytest
from api_bed import Bed, run
from cluster_objects import node
from log_node import LogNode

from inferx.exec.gateway.api import logs as logs_module
from inferx.exec.state.objects.actor import SYSTEM
from inferx.exec.wire import wire_pb2 as pb

OURS, THEIRS = "t1/n/f@3", "t10/n/f@3"
LOGS = (
    pb.PodLog(pod=7, function=OURS, state="ready", held_bytes=10),
    pb.PodLog(pod=9, function=THEIRS, state="ended", held_bytes=20, ended_ns=5),
)
ONE = "/podlog/t1/n/f/3/7/"
LINES = {"Accept": "application/x-ndjson"}


def piece(text: bytes, stream: str = "stdout", skipped: int = 0) -> pb.LogPiece:
    return pb.LogPiece(stream=stream, text=text, skipped_bytes=skipped)


@asynccontextmanager
async def logging_node(bed: Bed):
    """Register a node that keeps the output of a pod of each tenant."""
    made = LogNode(LOGS)
    async with made.served() as port:
        await bed.objects.create(node("n-0", podMgrPort=port), who=SYSTEM)
        yield made


async def until(fits) -> None:
    """Look until something is so."""
    async with asyncio.timeout(10):
        while True:
            if await fits():
                return
            await asyncio.sleep(0.02)


async def nobody_reads(made: LogNode) -> bool:
    return not made.readers


async def is_known(bed: Bed, key: str) -> bool:
    return (await bed.ask("GET", "/podlogs/t1/", key)).status == 200


def opened(bed: Bed, path: str, key: str, headers=None):
    return bed.http.get(
        f"{bed.url}{path}", headers={"Authorization": f"Bearer {key}"} | (headers or {})
    )


def test_a_tenant_never_reads_another_whose_name_begins_alike():
    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            whole = (await bed.ask("GET", "/podlogs/", bed.admin)).told
            assert whole["complete"]
            assert [row["pod"] for row in whole["logs"]] == [9, 7]
            assert whole["logs"][0] == {
                "pod": 9,
                "function": THEIRS,
                "node": "n-0",
                "state": "ended",
                "held_bytes": 20,
                "ended_ns": 5,
            }
            key = (await bed.key("read", "t1")).token
            for path in ("/podlogs/", "/podlogs/t1/", "/podlogs/t1/n/f/"):
                told = (await bed.ask("GET", path, key)).told
                assert [row["pod"] for row in told["logs"]] == [7]
            for path in ("/podlogs/t10/", "/podlogs/t10/n/", "/podlog/t10/n/f/3/9/"):
                assert (await bed.ask("GET", path, key)).code == "forbidden"
                assert (await bed.ask("GET", path)).code == "unauthenticated"
            # Nor by its own function's name: the node has the last word.
            assert (await bed.ask("GET", "/podlog/t1/n/f/3/9/", key)).status == 404
            inference = (await bed.key("inference", "t1")).token
            assert (await bed.ask("GET", ONE, inference)).code == "forbidden"
            assert not made.asked, "nobody was asked for what may not be read"

    run(work)


def test_a_text_is_what_the_pod_wrote_and_lines_say_of_which_stream():
    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            said = [piece("ä".encode()[:1]), piece(b"err\n", "stderr"), piece("ä\n".encode()[1:])]
            for one in (*said, piece(b"late\n", skipped=5), None):
                made.says.put_nowait(one)
            async with opened(bed, f"{ONE}?tail=2&stream=stderr&follow=1", bed.admin) as answer:
                assert answer.status == 200
                assert answer.content_type == "text/plain"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                text = await answer.read()
            assert text == b"\xc3err\n\xa4\n[5 bytes are no longer kept]\nlate\n"
            (asked,) = made.asked
            assert (asked.lines, asked.stream, asked.follow) == (2, "stderr", True)
            for one in (*said, piece(b"\x1b\x00\n", skipped=5), None):
                made.says.put_nowait(one)
            async with opened(bed, ONE, bed.admin, LINES) as answer:
                assert answer.content_type == "application/x-ndjson"
                lines = [json.loads(line) async for line in answer.content]
            assert lines == [
                {"event": "text", "stream": "stdout", "text": ""},
                {"event": "text", "stream": "stderr", "text": "err\n"},
                {"event": "text", "stream": "stdout", "text": "ä\n"},
                {"event": "text", "stream": "stdout", "skipped_bytes": 5, "text": "\x1b\x00\n"},
                {"event": "end"},
            ]
            assert not made.asked[1].HasField("lines")

    run(work)


def test_a_part_never_looks_like_a_whole():
    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            for one in (piece(b"half"), grpc.StatusCode.INTERNAL):
                made.says.put_nowait(one)
            async with opened(bed, ONE, bed.admin) as answer:
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()
            for one in (piece(b"half"), grpc.StatusCode.INTERNAL):
                made.says.put_nowait(one)
            async with opened(bed, ONE, bed.admin, LINES) as answer:
                lines = [json.loads(line) async for line in answer.content]
            assert lines[0]["text"] == "half"
            assert lines[1]["event"] == "error"
            assert lines[1]["error"]["code"] == "node_unreachable"
            assert len(lines) == 2

    run(work)


def test_who_is_revoked_reads_no_longer_and_who_reads_nothing_hears_that_it_goes_on(monkeypatch):
    monkeypatch.setattr(logs_module, "HEARTBEAT_S", 0.2)

    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            admin = bed.admin
            asked = {"tenant": "t1", "namespace": "*", "level": "read", "label": ""}
            issued = (await bed.ask("PUT", "/apikey/", admin, asked)).told
            await until(lambda: is_known(bed, issued["key"]))
            async with opened(bed, f"{ONE}?follow=1", issued["key"], LINES) as answer:
                assert json.loads(await answer.content.readline()) == {"event": "alive"}
                where = f"/apikey/t1/*/{issued['id']}/"
                assert (await bed.ask("DELETE", where, admin)).status == 200
                lines = [json.loads(line) async for line in answer.content]
            assert lines[-1]["error"]["code"] == "unauthenticated"
            await until(lambda: nobody_reads(made))

    run(work)


def test_who_leaves_is_read_for_no_longer(monkeypatch):
    monkeypatch.setattr(logs_module, "HEARTBEAT_S", 0.2)

    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            for headers in ({}, LINES):
                async with opened(bed, f"{ONE}?follow=1", bed.admin, headers) as answer:
                    assert answer.status == 200
                    assert made.readers == 1
                await until(lambda: nobody_reads(made))

    run(work)


def test_a_reader_that_reads_nothing_slows_the_node():
    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            block = b"x" * 65_536
            for _ in range(1_000):
                made.says.put_nowait(piece(block))
            made.says.put_nowait(None)
            async with opened(bed, ONE, bed.admin) as answer:
                written = -1
                async with asyncio.timeout(20):
                    while written != made.written_bytes or not written:
                        written = made.written_bytes
                        await asyncio.sleep(0.5)
                assert written < 32 << 20, "64 MiB wait in between"
                got = 0
                async for chunk in answer.content.iter_any():
                    got += len(chunk)
                assert got == 1_000 * len(block)

    run(work)


def test_what_nodes_do_not_answer_is_told(monkeypatch):
    async def work(bed: Bed) -> None:
        async with logging_node(bed):
            # Nobody listens there.
            await bed.objects.create(node("n-1", podMgrPort=1), who=SYSTEM)
            told = (await bed.ask("GET", "/podlogs/", bed.admin)).told
            assert not told["complete"]
            assert len(told["logs"]) == 2
            missing = await bed.ask("GET", "/podlog/t1/n/f/3/8/", bed.admin)
            assert missing.status == 404
            assert "no node that answers has it" in missing.told["error"]["message"]

    run(work)


@pytest.mark.parametrize(
    "path",
    [
        "/podlog/t1/n/f/3/x/",
        "/podlog/t1/n/f/3/-1/",
        f"/podlog/t1/n/f/3/{'9' * 19}/",
        f"{ONE}?tail=-1",
        f"{ONE}?tail=all",
        f"{ONE}?follow=yes",
        f"{ONE}?stream=stdin",
        "/podlog/t1/n/f%20g/3/7/",
        "/podlogs/t1%2F/",
    ],
)
def test_what_is_no_question_is_one_clear_line(path):
    async def work(bed: Bed) -> None:
        async with logging_node(bed) as made:
            answer = await bed.ask("GET", path, bed.admin)
            assert answer.status == 400, answer
            assert "\n" not in answer.told["error"]["message"]
            assert not made.asked

    run(work)


def test_so_many_read_at_once_and_no_more(monkeypatch):
    monkeypatch.setattr(logs_module, "LOG_READERS", 1)

    async def work(bed: Bed) -> None:
        async with logging_node(bed), opened(bed, f"{ONE}?follow=1", bed.admin) as answer:
            assert answer.status == 200
            assert (await bed.ask("GET", ONE, bed.admin)).code == "busy"

    run(work)
