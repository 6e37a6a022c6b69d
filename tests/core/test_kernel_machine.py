"""The whole kernel under every fault at once: what must hold after each step, and at rest.

INV-1 capacity, INV-2 conservation, INV-3 no dispatch to a pod that is not ready, INV-4 nothing
stops while it serves, INV-5 time, INV-10 slots and leases, INV-11 restores: `World` asserts them.
"""

import pytest
from hypothesis import settings
from kernel_rules import Kernel, walk

TestKernel = Kernel.TestCase
TestKernel.settings = settings(
    settings(), stateful_step_count=40, max_examples=settings().max_examples * 6
)


@pytest.mark.parametrize("block", range(8))
def test_inv_1_2_3_4_10_11_hold_on_random_walks(block: int) -> None:
    count = settings().max_examples
    for seed in range(block * count, (block + 1) * count):
        try:
            walk(seed, 60).teardown()
        except BaseException as error:
            error.add_note(f"walk({seed}, 60)")
            raise
