"""Tests of the store may be coroutines: each runs on a loop of its own."""

import asyncio
import inspect

import pytest

WITHIN_S = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def test() -> None:
        async with asyncio.timeout(WITHIN_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(test())
    return True
