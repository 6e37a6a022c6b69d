"""Who exceeds a slice, and what is done about it and when."""

from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.agent.gpus.memory_guard import (
    Excess,
    GuardPolicy,
    Holding,
    Verdict,
    decide,
    exceeding,
)
from inferx.exec.agent.ports import GpuProcess, SliceShape


def part(gpu: str, size: int) -> SliceShape:
    return SliceShape(gpu=gpu, milli_gpu=500, hbm_bytes=size)


def test_a_pods_processes_count_together():
    pods = {"a": Holding((part("G0", 100),), (1, 2)), "b": Holding((part("G0", 100),), (3,))}
    processes = (GpuProcess("G0", 1, 60), GpuProcess("G0", 2, 60), GpuProcess("G0", 3, 100))

    (excess,) = exceeding(pods, processes, slack_bytes=0)

    assert excess == Excess("a", "G0", 120, 100)
    assert excess.excess_bytes == 20


def test_slack_counts_for_each_process_and_gpu():
    pods = {"a": Holding((part("G0", 100), part("G1", 100)), (1, 2))}
    processes = (GpuProcess("G0", 1, 60), GpuProcess("G0", 2, 60), GpuProcess("G1", 1, 111))

    assert exceeding(pods, processes, slack_bytes=10) == (Excess("a", "G1", 111, 110),)


def test_a_gpu_without_a_slice_is_not_to_be_touched_and_strangers_are_not_judged():
    pods = {"a": Holding((part("G0", 100),), (1,))}
    processes = (GpuProcess("G1", 1, 5), GpuProcess("G0", 9, 1000))

    assert exceeding(pods, processes, slack_bytes=10) == (Excess("a", "G1", 5, 0),)


def test_a_warning_is_given_once_and_the_harsh_step_waits():
    policy = GuardPolicy(action="kill", slack_bytes=0, patience_ns=100)
    excess = Excess("a", "G0", 120, 100)

    verdicts, since = decide((excess,), {}, 1_000, policy)
    assert verdicts == (Verdict(excess, "warn"),)
    verdicts, since = decide((excess,), since, 1_099, policy)
    assert verdicts == ()
    verdicts, since = decide((excess,), since, 1_100, policy)
    assert verdicts == (Verdict(excess, "kill"),)
    verdicts, since = decide((excess,), since, 1_200, policy)
    assert verdicts == (Verdict(excess, "kill"),), "repeated until it is gone"
    verdicts, since = decide((), since, 1_300, policy)
    assert (verdicts, since) == ((), {})
    verdicts, _ = decide((excess,), since, 1_400, policy)
    assert verdicts == (Verdict(excess, "warn"),), "patience begins anew"


def test_no_patience_acts_at_once_and_warn_never_does_more():
    excess = Excess("a", "G0", 120, 100)
    at_once = GuardPolicy(action="throttle", slack_bytes=0, patience_ns=0)
    mild = GuardPolicy(action="warn", slack_bytes=0, patience_ns=0)

    assert decide((excess,), {}, 0, at_once)[0] == (Verdict(excess, "throttle"),)
    verdicts, since = decide((excess,), {}, 0, mild)
    assert verdicts == (Verdict(excess, "warn"),)
    assert decide((excess,), since, 10**12, mild)[0] == ()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30))
def test_a_pod_is_acted_on_only_after_an_unbroken_time(turns: list[tuple[str, bool]]):
    policy = GuardPolicy(action="kill", slack_bytes=0, patience_ns=3)
    since: dict[tuple[str, str], int] = {}
    begun: dict[str, int] = {}
    for now_ns, (pod, both) in enumerate(turns):
        who = ("a", "b") if both else (pod,)
        begun = {name: begun.get(name, now_ns) for name in who}
        verdicts, after = decide(
            tuple(Excess(name, "G0", 2, 1) for name in who), since, now_ns, policy
        )
        since = dict(after)
        killed = {v.excess.pod for v in verdicts if v.action == "kill"}
        assert killed == {name for name, at in begun.items() if now_ns - at >= 3}
