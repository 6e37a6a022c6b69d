"""Without CRIU a pod is suspended where it is, and nothing else."""

import pytest
from plain_pods import ask, connect, free_port, get, needs_root, sandbox_in, server_spec

from inferx.exec.agent.ports import AgentError, Snapshotter
from inferx.exec.agent.processes.criu import CriuSnapshotter
from inferx.exec.agent.processes.suspend import SuspendOnly

pytestmark = needs_root


def test_pod_is_suspended_and_goes_on_but_is_not_dumped(tmp_path):
    with sandbox_in(tmp_path) as sandbox:
        snapshotter: Snapshotter = SuspendOnly(CriuSnapshotter(sandbox, path="/no").probe().reason)
        assert snapshotter.probe().reason == "no CRIU: /no is not there, or cannot be run"
        spec = server_spec(tmp_path, "a", 1, free_port())
        live = sandbox.start(spec)
        before = ask(spec)
        client = connect(spec)
        sandbox.freeze("a")
        client.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            get(client)
        client.close()
        with pytest.raises(AgentError, match="pod a: cannot be dumped: no CRIU: /no is not there"):
            snapshotter.dump(spec, live, tmp_path, leave=True)
        with pytest.raises(AgentError, match="pod a: cannot be restored: no CRIU"):
            snapshotter.restore(spec, tmp_path)
        sandbox.thaw("a")
        assert ask(spec)["sum"] == before["sum"]
        assert sandbox.live() == [live]
