"""How many tokens a call used, read off its answer while that passes by."""

import re
from typing import Final, NamedTuple

__all__ = ["NOTHING", "Usage", "told_usage"]

_OUTPUT_NAME: Final = b'"completion_tokens"'
_INPUT_NAME: Final = b'"prompt_tokens"'
_OUTPUT: Final = re.compile(_OUTPUT_NAME + rb"\s*:\s*(\d{1,12})")
_INPUT: Final = re.compile(_INPUT_NAME + rb"\s*:\s*(\d{1,12})")


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
    told_input = _last(tail, _INPUT_NAME, _INPUT)
    told_output = _last(tail, _OUTPUT_NAME, _OUTPUT)
    if told_input is not None or told_output is not None:
        return Usage(told_input or 0, told_output or 0)
    return NOTHING if events is None else Usage(untold_events=events)


def _last(tail: bytes, name: bytes, told: re.Pattern[bytes]) -> int | None:
    at = tail.rfind(name)
    if at < 0:
        return None
    # The last of that name is mostly the one; a name without a number is looked past.
    found = told.match(tail, at)
    if found is not None:
        return int(found[1])
    every = told.findall(tail)
    return int(every[-1]) if every else None
