"""How many tokens a call used, read off its answer while that passes by."""

import re
from typing import Final, NamedTuple

__all__ = ["NOTHING", "Usage", "told_usage"]

_OUTPUT: Final = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,12})')
_INPUT: Final = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,12})')


class Usage(NamedTuple):
    """Tokens of one call.

    Attributes:
        input_tokens: Of its prompt, as told.
        output_tokens: That were generated, as told.
        untold_events: Of a stream that tells of neither: an engine sends about one a token.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    untold_events: int = 0


NOTHING: Final = Usage()


def told_usage(tail: bytes, events: int | None) -> Usage:
    """Return what an answer tells.

    Args:
        tail: Its end, where engines tell what was used.
        events: How many events it had; None for what is no stream. Engines tell of usage in a
            stream only if its caller wants it.
    """
    told_input, told_output = _INPUT.findall(tail), _OUTPUT.findall(tail)
    if told_input or told_output:
        return Usage(_last(told_input), _last(told_output))
    return NOTHING if events is None else Usage(untold_events=events)


def _last(found: list[bytes]) -> int:
    return int(found[-1]) if found else 0
