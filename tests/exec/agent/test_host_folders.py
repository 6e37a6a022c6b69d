"""Functions mount of the host what its operator has named, however they name it."""

from pathlib import Path

import pytest
from agent_node import FUNCTION, agent_node, function, needs_node, pod, traces
from standin_gpus import Node as Gpus

from inferx.exec.agent.host_folders import within
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError, Launch, Mount


def launch(*sources: Path | str) -> Launch:
    mounts = tuple(Mount(str(source), "/there") for source in sources)
    return Launch(function="t/n/f@1", command=("x",), mounts=mounts)


def test_what_is_named_and_below_is_mounted_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "models/llama").mkdir(parents=True)
    (tmp_path / "models/newest").symlink_to("llama")
    (tmp_path / "also").symlink_to("models")
    wanted = launch(tmp_path / "models", tmp_path / "also/newest", tmp_path / "models/llama")
    # A folder may be named by a link, too.
    for allowed in (tmp_path / "models", tmp_path / "also"):
        found = within(wanted, (Path("/none"), allowed))
        assert [mount.source for mount in found.mounts] == [
            str(tmp_path / "models"),
            str(tmp_path / "models/llama"),
            str(tmp_path / "models/llama"),
        ]
        assert [mount.target for mount in found.mounts] == ["/there"] * 3
    assert within(launch(), ()) == launch()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{0}", "mounts {0}; this node lets functions mount {0}/models$"),
        ("{0}/models-of-others", "mounts {0}/models-of-others; this node"),
        ("{0}/models/../secrets", "mounts {0}/models/../secrets, which is {0}/secrets; this"),
        ("{0}/models/out", "mounts {0}/models/out, which is {0}/secrets; this node"),
        ("{0}/models/none", "mounts {0}/models/none, which is not there"),
        ("models", "mounts 'models'; expected a path from the host's root"),
        ("", "mounts ''; expected a path"),
    ],
)
def test_another_is_refused_in_one_line(tmp_path: Path, source: str, told: str) -> None:
    for name in ("models", "models-of-others", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "models/out").symlink_to(tmp_path / "secrets")
    with pytest.raises(AgentError, match=told.format(tmp_path)) as caught:
        within(launch(source.format(tmp_path)), (tmp_path / "models",))
    assert "\n" not in str(caught.value)
    assert caught.value.phase == "mounts"
    with pytest.raises(AgentError):
        within(launch(source.format(tmp_path)), ())


@needs_node
def test_a_pod_is_refused_before_anything_of_it_is_there(tmp_path: Path) -> None:
    gpus = Gpus.make(tmp_path / "gpus", gpus=1)
    plain = {"gpu_mb": 0, "gpus": 0, "milli_gpu": 0, "hbm_bytes": 0}
    mounts = (Mount(str(tmp_path / "models"), "/mnt"),)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/weights").write_text("w")
    one = function(gpus, launch={"mounts": mounts}, **plain)
    with agent_node(tmp_path, gpus, one, gpus=(1 << 30,)) as node:
        with (
            node.agent() as agent,
            pytest.raises(AgentError, match=r"nothing: sandbox\.mounts is empty"),
        ):
            agent.pods.create(pod(1), FUNCTION, (), Phases())
        assert not traces(node)
        assert list((node.config.state / "pods").iterdir()) == []
        with node.agent(mounts=(tmp_path,)) as agent:
            live = agent.pods.create(pod(1), FUNCTION, (), Phases()).live
            assert Path(f"/proc/{live.pid}/root/mnt/weights").read_text() == "w"
            agent.pods.stop(pod(1))
        assert not traces(node)
