"""What the museum is measured on: traces, clusters, and how larger clusters are made."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CASES", "PROFILE", "Case"]

PROFILE = "criu-memfd"
"""One start-up mechanism for all: policies are compared, not ways of starting."""
_LLM = ("--assign", "zipf:1.1,50", "--functions", "auto")
_HALF = 'instance_type = "p5.48xlarge"\ngpus = 4\nhost_gib = 1024\nnvme_gb = 15200'
_L40S = 'instance_type = "g6e.12xlarge"'


@dataclass(frozen=True, slots=True)
class Case:
    """One trace.

    Attributes:
        trace: Its path under INFERX_TRACE_DIR.
        cluster: The cluster of the table.
        options: How its requests become functions.
        node: A node of four GPUs, of which larger clusters are made.
        made: Words of `inferx trace` that make what is replayed out of it: the command, its options.
    """

    name: str
    title: str
    trace: str
    cluster: str
    options: tuple[str, ...]
    node: str
    made: tuple[str, ...] = ()

    def larger(self, gpus: int, folder: Path) -> Path:
        """Write a cluster of so many GPUs, in nodes of four, and return its file."""
        file = folder / f"{self.name}-{gpus}.toml"
        file.write_text(f"[[group]]\n{self.node}\ncount = {gpus // 4}\n")
        return file


CASES = (
    Case(
        "gentd26",
        "Alibaba GenAI 2026, image models: the eighth to the tenth of its 23 days, on 16 L40S",
        "gentd26/lora_request_trace.csv",
        "g6e.12xlarge=4",
        ("--functions", "auto:diffusion"),
        _L40S,
        ("transform", "--cut", "604800:864000"),
    ),
    Case(
        "azure-conv",
        "Azure LLM 2023, conversation: one hour over 50 functions, on 16 H100",
        "azure-llm-2023/AzureLLMInferenceTrace_conv.csv",
        "p5.48xlarge=2",
        _LLM,
        _HALF,
    ),
    Case(
        "azure-code",
        "Azure LLM 2023, code: one hour over 50 functions, on 16 H100",
        "azure-llm-2023/AzureLLMInferenceTrace_code.csv",
        "p5.48xlarge=2",
        _LLM,
        _HALF,
    ),
    Case(
        "mooncake",
        "Mooncake conversation: one hour over 50 functions, on 16 H100",
        "mooncake/conversation_trace.jsonl",
        "p5.48xlarge=2",
        _LLM,
        _HALF,
    ),
    Case(
        "servegen",
        "ServeGen deepseek-r1: the busiest hour at a quarter of its rate, its clients as functions,"
        " on 16 H100",
        "servegen/deepseek-r1",
        "p5.48xlarge=2",
        ("--functions", "auto"),
        _HALF,
        ("servegen", "--cut", "79200:82800", "--scale", "0.25", "--seed", "1"),
    ),
)
