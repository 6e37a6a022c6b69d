"""The services' log lines: JSON that can be searched by ids, and text that people read."""

import json
import logging
import subprocess
import sys

import pytest

from inferx.exec.logs import JsonLines, function_ids, ids


def line(message, *arguments, formatter=None, **more):
    record = logging.LogRecord("inferx.x", logging.WARNING, "f", 1, message, arguments, None)
    for name, value in more.items():
        setattr(record, name, value)
    told = (formatter or JsonLines(service="agent", node="n")).format(record)
    assert "\n" not in told
    return json.loads(told)


def test_a_line_says_when_where_what_and_of_whom():
    told = line("pod %d is gone", 3, **ids(pod=3, tenant="t", trace=None))
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "warning",
        "service": "agent",
        "node": "n",
        "logger": "inferx.x",
        "message": "pod 3 is gone",
        "pod": 3,
        "tenant": "t",
    }


def test_a_field_does_not_pass_for_what_the_line_says_of_itself():
    told = line("m", **ids(message="other", level="debug", service="gateway", pod=1))
    assert (told["message"], told["level"], told["service"]) == ("m", "warning", "agent")
    assert told["pod"] == 1


def test_a_message_of_several_lines_and_an_exception_are_one_line():
    try:
        int("a\nb")
    except ValueError:
        told = line("one\ntwo", exc_info=sys.exc_info())
    assert told["message"] == "one\ntwo"
    assert "ValueError" in told["error"]


def test_what_json_does_not_know_is_told_as_text():
    assert line("m", **ids(pod={1}))["pod"] == "{1}"


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("t/n/f@3", {"tenant": "t", "namespace": "n", "function": "f", "version": "3"}),
        ("", {}),
        ("odd", {"function": "odd"}),
    ],
)
def test_a_function_s_identity_is_taken_apart(identity, expected):
    assert function_ids(identity) == expected


@pytest.mark.parametrize("as_json", [True, False])
def test_a_process_logs_to_stderr(as_json):
    program = (
        "import logging; from inferx.exec.logs import ids, log_to_stderr;"
        f"log_to_stderr(as_json={as_json}, service='state');"
        "logging.getLogger('a').info('hello', extra=ids(pod=1))"
    )
    ran = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    if as_json:
        assert json.loads(ran.stderr)["service"] == "state"
    else:
        assert ran.stderr.endswith(" a hello\n")
