"""A driven trace as two records: what came of it, and what the simulator says would have."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from inferx.cli.live_journals import Journals
from inferx.client.driving import Answer
from inferx.core.errors import DescriptionError
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.link import LinkModel
from inferx.sim.observed import Asked, observe
from inferx.sim.profile import Profile
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.workload.trace import Trace
from inferx.sim.world import World

__all__ = ["LIVE", "check_names", "observed", "predicted", "world_of"]

LIVE: Final = "live"
_OUTCOME: Final = {
    "unfinished": Outcome.UNFINISHED,
    "finished": Outcome.FINISHED,
    "refused": Outcome.REFUSED,
    "aborted": Outcome.ABORTED,
}


def check_names(trace: Trace, told: Journals) -> None:
    """Refuse a trace with functions that the cluster does not have.

    Raises:
        DescriptionError: Which.
    """
    known = {function.name for function in told.functions}
    used: list[int] = np.unique(trace.function).tolist()
    for row in used:
        if trace.names[row] not in known:
            raise DescriptionError(
                f"function {trace.names[row]}: not in the cluster; expected one of"
                f" {', '.join(sorted(known)) or 'none'}"
            )


def observed(trace: Trace, answers: Sequence[Answer], told: Journals) -> RunRecord:
    """Return what came of a driven trace; requests that were never sent are no part of it."""
    functions: list[int] = trace.function.tolist()
    asked = [
        Asked(
            function=trace.names[function],
            input_tokens=tokens_in,
            output_tokens=answer.tokens or tokens_out,
            sent_ns=answer.sent_ns,
            first_ns=answer.first_ns,
            ended_ns=answer.ended_ns,
            outcome=_OUTCOME[answer.outcome],
            why=answer.why,
        )
        for answer, function, tokens_in, tokens_out in zip(
            answers,
            functions,
            trace.input_tokens.tolist(),
            trace.output_tokens.tolist(),
            strict=True,
        )
        if answer.sent_ns >= 0
    ]
    return observe(
        told.heard,
        asked,
        told.decisions,
        nodes=told.nodes,
        functions=told.sliced,
        policy=LIVE,
        seed=told.seed,
        counters=told.counters,
    )


def world_of(told: Journals, profile: Profile, link: LinkModel) -> World:
    """Return the cluster that a run was on, as the simulator sees it: empty at the beginning."""
    return World(
        nodes=told.nodes,
        functions=told.functions,
        profile=profile,
        prepared="none",
        routers=told.routers,
        link=link,
    )


def predicted(trace: Trace, told: Journals, world: World, *, seed: int | None = None) -> RunRecord:
    """Return what the simulator says of the same trace, under the cluster's policy.

    `seed` is that of device times and of the policy's chances; without, the cluster's.
    """
    index = {spec.name: row for row, spec in enumerate(world.functions)}
    new = np.array([index.get(name, -1) for name in trace.names], np.int32)
    mapped = replace(trace, function=new[trace.function], names=tuple(index))
    name = f"predicted ({world.profile.name})"
    bundle = replace(load_bundle(told.policy, told.settings), name=name)
    chosen = told.seed if seed is None else seed
    return simulate(world, [mapped], bundle, seed=chosen, explain=True)
