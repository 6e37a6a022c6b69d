"""`inferx agent end`: everything of a node ends, its pods first."""

from pathlib import Path

import click

from inferx.core.types import PodId
from inferx.exec.agent.config import AgentConfig, read_config
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.node import assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.processes.cgroup import Cgroups

__all__ = ["end"]


@click.command(epilog="\b\nExample:\n  inferx agent end --config node.toml")
@click.option("--config", type=click.Path(path_type=Path), help="The node's configuration.")
def end(*, config: Path | None) -> None:
    """End the pods of this node, and remove what was made for them; its agent must not run.

    Snapshots stay.
    """
    settings = AgentConfig() if config is None else read_config(config)
    node = assemble(settings, all_asked=False)
    try:
        pods = Pods(node, Deployments(settings.state / "functions"))
        try:
            records, empty = pods.records.read()
            numbers = [record.pod for record in records] + list(empty)
            for pod in numbers:
                pods.stop(PodId(pod))
            for name in node.sandbox.traces():
                node.sandbox.stop(name)
            node.network.recover(frozenset())
            node.network.close()
            Cgroups(settings.name).drop_parent()
        finally:
            pods.close()
    finally:
        node.close()
    click.echo(f"{len(numbers)} pods ended", err=True)
