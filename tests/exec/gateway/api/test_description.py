"""The API is what its description says, whatever is sent: with a key and without."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
import schemathesis
from api_bed import bed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 12
START_S = 20.0
CALL_S = 10.0


@contextmanager
def served() -> Generator[tuple[str, str]]:
    """Run a gateway beside the test; give its URL and an administrator's key."""
    begun = threading.Event()
    told: list[str] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        async with bed() as made:
            end = asyncio.Event()
            told[:] = made.url, made.admin
            stop.append((asyncio.get_running_loop(), end))
            begun.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert begun.wait(START_S)
        yield told[0], told[1]
    finally:
        for loop, end in stop:
            loop.call_soon_threadsafe(end.set)
        thread.join()


def breaks_nothing(case: schemathesis.Case, url: str, headers: dict[str, str]) -> None:
    # A watch has no end.
    if isinstance(case.query, dict):
        case.query.pop("watch", None)
    answer = case.call(base_url=url, headers=headers, timeout=CALL_S)
    if answer.status_code >= 500:
        # Nobody leads here, and that is all that may be wrong.
        assert answer.status_code == 503, answer.text
        if not case.path.startswith("/readyz"):
            assert answer.json()["error"]["code"] == "no_leader", answer.text
    case.validate_response(answer, checks=CHECKS)
    if not headers and case.operation.definition.raw.get("security") != []:
        assert answer.status_code >= 400, answer.text


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.filterwarnings("default")
def test_nothing_that_is_sent_breaks_what_is_described(with_key: bool) -> None:
    with served() as (url, key):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        headers = {"Authorization": f"Bearer {key}"} if with_key else {}
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                send = settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(
                    given(case=operation.as_strategy(generation_mode=mode))(
                        lambda case: breaks_nothing(case, url, headers)
                    )
                )
                try:
                    send()
                except Unsatisfiable:
                    # Nothing of it can be wrong.
                    assert mode is GenerationMode.NEGATIVE
