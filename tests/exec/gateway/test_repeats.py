"""Heads that are known again: nothing is read off them that the parser would read otherwise."""

import re

import httptools
import pytest
from gateway_bed import CALL, Pod, answer, echo, gateway, request, run, told, until
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.repeats import REMEMBERED_BYTES, SELDOM, Latest, known_again

NAME = st.sampled_from(["Content-Type", "content-length", "X-A", "Accept", "Content-Lengthy"])
VALUE = st.text(st.sampled_from("ab 01:\t,"), max_size=6)
LINES = st.lists(st.tuples(NAME, VALUE), max_size=3).map(
    lambda lines: [f"{name}: {value}" for name, value in lines if name != "content-length"]
)
PIECE = st.binary(max_size=12)


class Read:
    """A message as the parser reads it."""

    def __init__(self, sent):
        self.url, self.headers, self.body = b"", [], b""
        self.begun = self.ended = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(sent)

    def on_message_begin(self):
        self.begun += 1

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_body(self, piece):
        self.body += piece

    def on_message_complete(self):
        self.ended += 1

    @property
    def said(self):
        """All but the length."""
        others = [one for one in self.headers if one[0].lower() != b"content-length"]
        return self.parser.get_method(), self.url, others


def post(lines, body, spelled="Content-Length: ", at=0):
    lines = [*lines[:at], f"{spelled}{len(body)}", *lines[at:]]
    return "\r\n".join(["POST /x HTTP/1.1", "Host: h", *lines, "", ""]).encode() + body


@given(lines=LINES, at=st.integers(0, 3), first=PIECE, second=PIECE)
@pytest.mark.parametrize("spelled", ["Content-Length: ", "content-length:", "CONTENT-LENGTH: \t "])
def test_the_same_words_with_another_body_are_known_again(spelled, lines, at, first, second):
    known = known_again(post(lines, first, spelled, at), len(first))
    assert known is not None
    assert known.body_of(post(lines, second, spelled, at)) == second


@given(
    lines=LINES,
    first=PIECE,
    second=PIECE,
    cuts=st.tuples(st.integers(0, 120), st.integers(0, 4)),
    put=st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"0", b"+1", b" ", b"1\r"]),
)
@example([], b"", b"", (53, 0), b"\r\nContent-Length: 0")
@example([], b"abc", b"abc", (46, 1), b"+3")
def test_what_is_known_again_is_what_the_parser_reads(lines, first, second, cuts, put):
    said = post(lines, first)
    known = known_again(said, len(first))
    at, gone = cuts
    other = post(lines, second)
    sent = other[:at] + put + other[at + gone :]
    body = known.body_of(sent)
    if body is not None:
        read, before = Read(sent), Read(said)
        assert (read.begun, read.ended) == (1, 1)
        assert (read.body, read.said) == (body, before.said)


def test_a_message_with_anything_behind_it_is_not_known_again():
    one = post([], b"abc")
    known = known_again(one, 3)
    assert known.body_of(one) == b"abc"
    assert known.body_of(one + one) is None
    assert known.body_of(one[:-1]) is None
    assert known_again(one + one, 3) is None
    plain = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert known_again(plain, 0).body_of(plain) == b""
    assert known_again(plain, 0).body_of(plain + b"x") is None
    assert known_again(plain + b"abc", 3) is None


def test_long_heads_and_odd_lengths_are_parsed_each_time():
    assert known_again(post([f"X: {'a' * REMEMBERED_BYTES}"], b"abc"), 3) is None
    assert known_again(post([], b"abc").replace(b": 3", b": 3 "), 3) is None
    known = known_again(post([], b"abc"), 3)
    assert known.body_of(post([], b"abc").replace(b": 3", b": " + b"0" * 20 + b"3")) is None


def test_who_never_says_the_same_is_listened_to_seldom_and_known_when_they_do():
    latest = Latest()
    for number in range(5 * SELDOM):
        message = post([f"X-Request-Id: {number}"], b"abc")
        assert latest.body_of(message) is None
        latest.keep(message, 3, number)
    again = [latest_body(latest, post(["X-Request-Id: same"], b"abc")) for _ in range(2 * SELDOM)]
    assert again[-1] == b"abc"
    assert latest.head == "same"
    # And from then on nothing is missed.
    other = post([], b"abc")
    assert [latest_body(latest, other) for _ in range(3)] == [None, b"abc", b"abc"]


def latest_body(latest, message):
    body = latest.body_of(message)
    if body is None:
        latest.keep(message, 3, "same")
    return body


def test_requests_that_repeat_each_other_arrive_each_with_its_own_body():
    bodies = [b"a", b"", b"bcd" * 100, b"x" * 300, b"e"]

    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            for number, body in enumerate(bodies * 3):
                headers = ["X-Turn: last"] if number == len(bodies) else []
                length = f"Content-Length: {len(body)}"
                sent = request("POST", CALL + "/x", [*headers, length])
                if number == 3:
                    # In pieces, it is the parser's.
                    writer.write(sent + body[:1])
                    await until(lambda n=number: len(bed.gateway._clients) == 1 and n)
                    await writer.drain()
                    writer.write(body[1:])
                else:
                    writer.write(sent + body)
                got = await answer(reader)
                assert (got.status, got.body) == (200, body)
            writer.close()
            assert [one.body for one in pod.asked] == bodies * 3
            ids = {one.headers["x-request-id"] for one in pod.asked}
            traces = {one.headers["traceparent"] for one in pod.asked}
            assert len(ids) == len(traces) == len(pod.asked)
            turns = [one.headers["x-turn"] for one in pod.asked]
            assert [number for number, turn in enumerate(turns) if turn] == [len(bodies)]
            for one in pod.asked:
                assert int(one.headers["content-length"]) == len(one.body)
                assert one.raw.count(b"ontent-") == 1

    run(main())


def test_a_head_that_is_known_opens_nothing_that_was_closed_since():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, body_bytes=100) as bed:
            reader, writer = await bed.connect()

            async def ask(body):
                writer.write(request("POST", CALL + "/x", body=body))
                return (await answer(reader)).status

            assert [await ask(b"a"), await ask(b"b")] == [200, 200]
            bed.unknown = Refused("unauthenticated")
            assert await ask(b"c") == 401
            bed.unknown = None
            bed.denied = Refused("forbidden")
            assert await ask(b"d") == 403
            bed.denied = None
            assert await ask(b"e") == 200
            assert await ask(b"f" * 101) == 413
            writer.close()
            assert [one.body for one in pod.asked] == [b"a", b"b", b"e"]

    run(main())


def test_answers_that_repeat_each_other_differ_in_their_bodies_alone():
    replies = [b"a", b"bcd", b"", b"e" * 500, b"f"]

    async def script(asked, reader, writer):
        await told(replies[len(pods[0].asked) % len(replies)])(asked, reader, writer)

    pods = []

    async def main():
        async with Pod(script) as pod, gateway(pod.address) as bed:
            pods.append(pod)
            reader, writer = await bed.connect()
            for number in range(1, 11):
                writer.write(request("GET", CALL + "/x"))
                got = await answer(reader)
                assert got.body == replies[number % len(replies)]
                assert len(re.findall(rb"(?i)content-length", got.raw)) == 1
            writer.write(request("HEAD", CALL + "/x"))
            got = await answer(reader, head_only=True)
            assert int(got["content-length"]) == len(replies[11 % len(replies)])
            writer.close()
            assert pod.connections == 1

    run(main())


def test_a_repeated_answer_that_is_cut_off_or_too_long_is_no_whole_one():
    async def script(asked, reader, writer):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
        if b"/cut" in asked.raw:
            writer.write(head + b"ab")
            await writer.drain()
            writer.close()
            raise ConnectionResetError
        writer.write(head + (b"abcd" if b"/long" in asked.raw else b"abc"))

    async def main():
        async with Pod(script) as pod, gateway(pod.address) as bed:
            for _ in range(3):
                assert (await bed.ask()).body == b"abc"
            assert pod.connections == 1
            got = await bed.ask(path=CALL + "/cut")
            assert not got.whole
            assert (await bed.ask()).body == b"abc"
            assert (await bed.ask()).body == b"abc"
            assert pod.connections == 2
            assert (await bed.ask(path=CALL + "/long")).status == 502
            assert (await bed.ask()).body == b"abc"
            assert pod.connections == 3

    run(main())
