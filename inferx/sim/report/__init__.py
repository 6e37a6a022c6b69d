"""One self-contained page of pictures for a run: no network, the same bytes for the same run."""

from inferx.sim.report.html import write_report

__all__ = ["write_report"]
