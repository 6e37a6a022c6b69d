"""Hypothesis profiles, and `--regen` for transcripts."""

import gc
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
# Derandomised: a run on a branch tells of the branch, not of luck. `soak` looks for new luck.
settings.register_profile(
    "dev", max_examples=25, deadline=None, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile(
    "ci", max_examples=100, deadline=None, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile(
    "soak",
    max_examples=2_000,
    deadline=None,
    suppress_health_check=_SLOW,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# A shell starts what runs in the background deaf to Ctrl-C, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite the transcripts in tests/golden")


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--regen"))


def pytest_collection_finish() -> None:
    """Keep the modules out of every collection of garbage: each simulation begins with one."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Have tests of processes know when they began."""
    pods = sys.modules.get("plain_pods")
    if pods is not None:
        pods.began_ticks = pods.boot_ticks()
