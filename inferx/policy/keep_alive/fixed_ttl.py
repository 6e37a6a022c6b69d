"""Fixed keep-alive: an idle pod stays for a set time, whatever its function.

Source: the baseline of Fuerst and Sharma, "FaasCache: Keeping Serverless Computing Alive with
Greedy-Dual Caching", ASPLOS'21, p. 394, section 7.1; repository aFuerst/faascache-sim at e1f3b84,
`code/split/LambdaScheduler.py`, lines 45 and 46: `TTL` is 10 minutes, counted from the latest use,
and `LONG-TTL` is 2 hours. A pod idle for exactly the time is still warm.

Differs: the time runs from when a gateway gave the pod back, after its last request has ended, not
from that request's arrival; pods leave when their time is over, not at the next look; one that
leaves is suspended to host memory and stays there, unless `then` says otherwise (`absent` is the
published rule, which has no such tier).
"""

from dataclasses import replace

from inferx.policy import NS_PER_S, PolicyBundle, plain
from inferx.policy.basics import FixedHold
from inferx.policy.parts.sinks import sink_tier

__all__ = ["bundle"]

_MOST_S = 366 * 86_400


def bundle(hold_s: float = 600.0, then: str = "dram") -> PolicyBundle:
    """Return the bundle.

    Args:
        hold_s: How long an idle pod stays, in seconds.
        then: Where it goes after that: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 <= hold_s <= _MOST_S:
        raise ValueError(f"hold_s is {hold_s:g}; expected seconds, 0 to a year")
    tier = sink_tier(then)
    hold = FixedHold(round(hold_s * NS_PER_S), tier)
    return replace(plain.bundle(), name="fixed-ttl", keep_alive=hold)
