"""What a command needs and is not installed is told in one line."""

import subprocess
import sys

import pytest

RUN = "import sys; sys.modules[{!r}] = None; from inferx.cli import main; main()"


@pytest.mark.parametrize(
    ("command", "module"), [("up", "aiohttp"), ("state", "grpc"), ("gateway", "sqlalchemy")]
)
def test_a_command_that_needs_more_says_what_to_install(command, module):
    line = (sys.executable, "-c", RUN.format(module), command, "--help")
    run = subprocess.run(line, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert (
        run.stderr
        == f"inferx: {command}: no module {module}; expected pip install 'inferx[exec]'\n"
    )


def test_the_others_do_not_need_it():
    line = (sys.executable, "-c", RUN.format("aiohttp"), "replay", "--help")
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
