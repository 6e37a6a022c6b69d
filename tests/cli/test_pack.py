"""`inferx pack` as a user calls it."""

import csv
import json

import numpy as np
import pytest

PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec
p0,4000,1024,1,500,
p1,4000,1024,1,1000,A|A|B
p2,2000,1024,0,0,
p3,8000,1024,2,1000,B
p4,4000,1024,1,300,
"""
NODES = "sn,cpu_milli,memory_mib,gpu,model\n" + "".join(
    f"n{i},32000,65536,4,{'AB'[i % 2]}\n" for i in range(4)
)


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "some_pods.csv").write_text(PODS)
    (tmp_path / "nodes.csv").write_text(NODES)
    return tmp_path


def write_orders(path, **arrays):
    names = {name.replace("__", "/"): np.array(rows, np.uint16) for name, rows in arrays.items()}
    np.savez(path, **names)
    return path


def rows(path):
    with (path / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_curves_have_a_row_a_run_and_metric(lists, good):
    out = lists / "out"
    told = good(
        "pack",
        lists / "some_pods.csv",
        "--nodes",
        lists / "nodes.csv",
        "--seed",
        "1..2",
        "--out",
        out,
    )
    assert "GPUs allocated" in told
    found = rows(out)
    assert list(found[0]) == ["workload", "policy", "seed", "metric", *map(str, range(131))]
    policies = ["random", "dotprod", "gpu-clustering", "gpu-packing", "best-fit", "fgd"]
    expected = [
        ("some_pods", policy, str(seed), metric)
        for seed in (1, 2)
        for policy in policies
        for metric in ("alloc", "frag_ratio")
    ]
    assert [(r["workload"], r["policy"], r["seed"], r["metric"]) for r in found] == expected
    points = [row[str(load)] for row in found for load in range(131)]
    assert all(point == "" or point == f"{float(point):.2f}" for point in points)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"][:2] == ["inferx", "pack"]
    assert set(manifest["inputs"]) == {"nodes", "pods.some_pods.csv"}


def test_orders_decide_who_comes_and_who_wins_ties(lists, good):
    orders = write_orders(
        lists / "orders.npz", some_pods__7__pods=[3, 3], some_pods__7__node_rank=[3, 2, 1, 0]
    )
    told = json.loads(
        good(
            "pack", lists / "some_pods.csv", "--nodes", lists / "nodes.csv", "--policy", "fgd",
            "--policy", "first-fit", "--orders", orders, "--seed", 7, "--json",
            "--out", lists / "o",
        )
    )  # fmt: skip
    assert [(run["policy"], run["arrivals"], run["placed"]) for run in told["runs"]] == [
        ("fgd", 2, 2),
        ("first-fit", 2, 2),
    ]
    assert rows(lists / "o")[0]["25"] == "25.00"


@pytest.fixture
def tight(tmp_path):
    """Two GPUs, and pods that best fit puts where a later one would have gone."""
    (tmp_path / "tight.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"
        + "".join(f"p{i},0,0,1,{milli}\n" for i, milli in enumerate((500, 300, 700, 500)))
    )
    (tmp_path / "two.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn0,9000,9000,2,A\n")
    orders = write_orders(
        tmp_path / "orders.npz", tight__1__pods=[0, 1, 2, 3], tight__1__node_rank=[0]
    )
    return ("pack", tmp_path / "tight.csv", "--nodes", tmp_path / "two.csv", "--orders", orders,
            "--seed", 1, "--policy", "best-fit")  # fmt: skip


def test_optimum_stands_beside_each_rule(tight, good):
    # 500 + 300 and 700, and no room for another 500; at best 500 + 500 and 300 + 700.
    policies = ("--policy", "clean-best-fit")
    for row in json.loads(good(*tight, *policies, "--optimum", "--json"))["runs"]:
        assert (row["placed_milli"], row["placed_percent"]) == (1500, 75.0)
        assert (row["optimum_milli"], row["optimum_percent"]) == (2000, 100.0)
        assert row["regret_percent"] == 25.0
    lines = good(*tight, *policies, "--optimum").splitlines()[-2:]
    assert [line.split() for line in lines] == [
        ["tight", policy, "1", "1500", "75.00", "2000", "100.00", "25.00"]
        for policy in ("best-fit", "clean-best-fit")
    ]


def test_without_optimum_nothing_tells_of_one(tight, good):
    assert "optim" not in good(*tight)
    row = json.loads(good(*tight, "--json"))["runs"][0]
    assert "regret_percent" not in row
    assert row["placed_milli"] == 1500


def test_optimum_of_pods_without_gpus_is_nothing_and_nobody_falls_short(tight, good):
    pods = tight[1]
    pods.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,0,0\nb,1,1,0,0\n")
    words = (*tight[:4], *tight[6:])  # Without the orders, which name more rows.
    row = json.loads(good(*words, "--optimum", "--json"))["runs"][0]
    assert (row["placed"], row["optimum_milli"], row["regret_percent"]) == (2, 0, 0.0)


def test_optimum_of_a_long_list_is_one_line(tight, call, tmp_path):
    (tmp_path / "two.csv").write_text(
        "sn,cpu_milli,memory_mib,gpu,model\n" + "".join(f"n{i},9,9,8,A\n" for i in range(18))
    )
    words = (*tight[:4], *tight[6:], "--optimum", "--out", tmp_path / "out")
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "requests of GPUs at 144 GPUs" in err
    assert "expected at most 4,000" in err
    assert not (tmp_path / "out").exists()


def test_own_orders_are_the_same_each_time_and_for_any_number_of_jobs(lists, good):
    (lists / "more.csv").write_text(
        PODS.replace(",gpu_spec", "")
        .replace(",A|A|B", "")
        .replace(",B\n", "\n")
        .replace(",\n", "\n")
    )
    words = ("pack", lists / "some_pods.csv", lists / "more.csv", "--nodes", lists / "nodes.csv")
    words += (
        "--policy",
        "random",
        "--policy",
        "best-fit",
        "--policy",
        "clean-random",
        "--seed",
        "1..2",
    )
    good(*words, "--out", lists / "a")
    good(*words, "--out", lists / "b", "--jobs", 2)
    assert (lists / "a" / "curves.csv").read_bytes() == (lists / "b" / "curves.csv").read_bytes()
    assert {row["workload"] for row in rows(lists / "a")} == {"some_pods", "more"}


def test_out_is_replaced_only_on_request_and_only_if_it_is_ours(lists, call):
    words = ("pack", lists / "some_pods.csv", "--nodes", lists / "nodes.csv", "--policy", "fgd")
    out = lists / "out"
    out.mkdir()
    assert call(*words, "--out", out)[0] == 0
    status, _, err = call(*words, "--out", out)
    assert (status, err.count("\n")) == (2, 1)
    assert "exists" in err
    assert call(*words, "--out", out, "--overwrite")[0] == 0
    (out / "manifest.json").unlink()
    assert "left alone" in call(*words, "--out", out, "--overwrite")[2]
    assert {path.name for path in lists.iterdir()} == {"some_pods.csv", "nodes.csv", "out"}


@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (("p0,4000", "p0,many"), (), "some_pods.csv:2: cpu_milli 'many'; expected a whole number"),
        (("p0,4000", "p0,-1"), (), "cpu_milli '-1'"),
        (("1,500,", "1,0,"), (), "gpu_milli 0; expected more than 0 for 1 GPUs"),
        (("2,1000,B", "2,500,B"), (), "gpu_milli 500; expected 1000 for a pod of 2 GPUs"),
        (("num_gpu", "gpus"), (), "some_pods.csv:1: no column num_gpu"),
        (("p1,", "p0,"), (), "name 'p0' twice or empty"),
        ((PODS, PODS.splitlines()[0]), (), "no pods"),
        (("", ""), ("--policy", "none"), "policy 'none': unknown; expected one of random"),
        (("", ""), ("--policy", "fgd", "--policy", "fgd"), "fgd: given twice"),
        (("", ""), ("--seed", "2..1"), "seed '2..1'"),
        (("", ""), ("--jobs", "0"), "jobs 0"),
        (("", ""), ("--published", "x"), "--published goes with --experiment"),
        (("", ""), ("--experiment", "fgd"), "--experiment brings its own"),
        (("", ""), ("--orders", "nodes.csv"), "nodes.csv: not a file of orders (.npz)"),
        (("", ""), ("--orders", "absent.npz"), "absent.npz: No such file"),
        (("", ""), ("--orders", "other.npz"), "no some_pods/42/pods; expected one of its"),
        (("", ""), ("--orders", "far.npz"), "names row 9; expected rows of 5 pods"),
        (("", ""), ("--orders", "tied.npz"), "node_rank has 1 ranks; expected one for each of 4"),
        (("", ""), ("--orders", "float.npz"), "is not a row of whole numbers"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(lists, call, monkeypatch, change, words, told):
    monkeypatch.chdir(lists)
    (lists / "some_pods.csv").write_text(PODS.replace(*change) if change[0] else PODS)
    ranks = {"some_pods__42__node_rank": [0, 1, 2, 3]}
    write_orders(lists / "other.npz", w__1__pods=[0])
    write_orders(lists / "far.npz", some_pods__42__pods=[9], **ranks)
    write_orders(lists / "tied.npz", some_pods__42__pods=[0], some_pods__42__node_rank=[0, 0])
    np.savez(lists / "float.npz", **{"some_pods/42/pods": np.zeros(3)})
    status, out, err = call("pack", "some_pods.csv", "--nodes", "nodes.csv", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err


RULE = """
from inferx.policy.packing.fitting import FirstFit

def last_fit():
    return FirstFit()

def nothing():
    return 7

def broken():
    raise RuntimeError("no")
"""


def test_rule_of_ones_own(lists, good, call):
    (lists / "mine.py").write_text(RULE)
    words = ("pack", lists / "some_pods.csv", "--nodes", lists / "nodes.csv", "--seed", "1..2")
    mine = f"{lists / 'mine.py'}:last_fit"
    good(*words, "--policy", mine, "--out", lists / "a", "--jobs", 2)
    good(*words, "--policy", "first-fit", "--out", lists / "b")
    for ours, theirs in zip(rows(lists / "a"), rows(lists / "b"), strict=True):
        assert ours.pop("policy") == mine
        assert theirs.pop("policy") == "first-fit"
        assert ours == theirs
    for name, told in (
        ("nothing", "made a int without 'local'"),
        ("broken", "it raised RuntimeError: no"),
        ("absent", "has no function 'absent'"),
    ):
        status, _, err = call(*words, "--policy", f"{lists / 'mine.py'}:{name}")
        assert (status, told in err, err.count("\n")) == (2, True, 1)


def test_node_lists_without_gpus_are_refused(lists, call):
    (lists / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn0,1000,1000,0,\n")
    status, _, err = call("pack", lists / "some_pods.csv", "--nodes", lists / "nodes.csv")
    assert (status, "no GPUs" in err) == (2, True)


def test_pods_and_nodes_or_an_experiment(call, monkeypatch, tmp_path):
    assert "expected PODS.csv and --nodes" in call("pack")[2]
    monkeypatch.delenv("INFERX_TRACE_DIR", raising=False)
    assert "INFERX_TRACE_DIR is not set" in call("pack", "--experiment", "fgd")[2]
    monkeypatch.setenv("INFERX_TRACE_DIR", str(tmp_path / "traces"))
    assert "expected the authors'" in call("pack", "--experiment", "fgd")[2]


def test_help_shows_an_example(good):
    assert "inferx pack --experiment fgd" in good("pack", "--help")


def write_experiment(folder):
    """A folder of traces and one of published curves, alike in form, with one seed."""
    openb, oracle = folder / "traces" / "openb", folder / "oracles" / "fgd"
    openb.mkdir(parents=True)
    oracle.mkdir(parents=True)
    (openb / "openb_node_list_gpu_node.csv").write_text(NODES)
    arrays = {}
    for name in ("default", "cpu100", "gpushare40", "gpuspec20", "multigpu30"):
        (openb / f"openb_pod_list_{name}.csv").write_text(PODS)
        arrays[f"openb_pod_list_{name}__42__pods"] = [0, 1, 2, 3, 4] * 6
        arrays[f"openb_pod_list_{name}__42__node_rank"] = [2, 0, 1, 3]
    write_orders(oracle / "orders.npz", **arrays)
    loads = ",".join(map(str, range(131)))
    line = "openb_pod_list_default,06-FGD,42," + ",".join(["1.00"] * 131)
    for name in ("analysis_allo_discrete.csv", "analysis_frag_ratio_discrete.csv"):
        (oracle / name).write_text(f"workload,sc_policy,seed,{loads}\n{line}\n")
    return folder


def test_experiment_stands_beside_the_published(good, monkeypatch, tmp_path):
    folder = write_experiment(tmp_path)
    monkeypatch.setenv("INFERX_TRACE_DIR", str(folder / "traces"))
    out = tmp_path / "out"
    told = good("pack", "--experiment", "fgd", "--seed", 42, "--out", out)
    assert "published" in told
    assert len(rows(out)) == 5 * 6 * 2
    compared = (out / "comparison.md").read_text()
    assert "| openb_pod_list_default | fgd |" in compared
    as_json = json.loads(good("pack", "--experiment", "fgd", "--seed", 42, "--json"))
    assert {one["policy"] for one in as_json["compared"]} == {"fgd"}
    assert all(one["max_difference_percent"] > 0 for one in as_json["compared"])


def test_broken_published_curves_are_one_line(call, monkeypatch, tmp_path):
    folder = write_experiment(tmp_path)
    monkeypatch.setenv("INFERX_TRACE_DIR", str(folder / "traces"))
    (folder / "oracles" / "fgd" / "analysis_allo_discrete.csv").write_text("workload\nx\n")
    status, _, err = call("pack", "--experiment", "fgd", "--seed", 42)
    assert (status, "not the authors' curves" in err) == (2, True)
