"""The command line as a user calls it, in this process."""

import sys

import pytest

from inferx import cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `inferx ...`; return exit status, stdout and stderr."""

    def run(*words: object):
        monkeypatch.setattr(sys, "argv", ["inferx", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        else:
            status = 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def good(call):
    """Run a command that must succeed in silence on stderr; return its stdout."""

    def run(*words: object) -> str:
        status, out, err = call(*words)
        assert (status, err) == (0, "")
        return out

    return run
