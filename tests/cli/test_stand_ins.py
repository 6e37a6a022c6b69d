"""`--worker-set`: options of the workers that stand in, checked before anything starts."""

import pytest

from inferx.cli.stand_ins import worker_options
from inferx.core.errors import DescriptionError


def test_settings_are_options_of_the_worker() -> None:
    told = worker_options(("tokens-per-s=100", "request-log=/a b"))
    assert told == ("--tokens-per-s", "100", "--request-log", "/a b")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("x", "--worker-set 'x': expected NAME=VALUE"),
        ("--seed=1", "--worker-set '--seed=1': expected NAME=VALUE"),
        ("toast=1", "--worker-set: No such option"),
        ("seed=x", "--worker-set: Invalid value for '--seed'"),
        ("tokens-per-s=nan", "--tokens-per-s nan: expected a number"),
    ],
)
def test_what_the_worker_does_not_take_is_one_line(setting: str, says: str) -> None:
    with pytest.raises(DescriptionError, match=r"^" + says.replace("?", r"\?")):
        worker_options((setting,))
