"""Prompts as people write them: one a line, with weights."""

from ...guidance.wording import quoted
from .numbers import LARGEST_WEIGHT, SMALLEST_WEIGHT, weight_in

__all__ = ["MOST_PROMPTS", "parse_prompts"]

# Each prompt is a pass of the text tower.
MOST_PROMPTS = 256

# Characters of all lines together; towers read a few hundred of each.
LONGEST_TEXT = 100_000

# What may stand in a number, right or wrong, before "::".
NUMERIC = frozenset("0123456789.,+-eE%_ \t")


def parse_prompts(text: str) -> list[tuple[str, float]]:
    """Prompts and their weights: one prompt a line, ``2.0 :: a watercolor`` counts twice.

    Without ``number ::`` in front a line is a prompt of weight 1 as it stands, colons included.
    Empty lines are left out.

    Raises:
        ValueError: a weight is no number of 1e-6 to 1e6, or stands before no prompt; there are more
            than MOST_PROMPTS lines, or more text than anybody writes.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(
            f"got {len(text):,} characters, expected at most {LONGEST_TEXT:,}: shorten the text"
        )
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if len(lines) > MOST_PROMPTS:
        raise ValueError(
            f"got {len(lines):,} lines, expected at most {MOST_PROMPTS} prompts, one a line"
        )
    return [_parsed(line) for line in lines]


def _parsed(line: str) -> tuple[str, float]:
    head, colons, rest = line.partition("::")
    if not colons or not _is_meant_as_weight(head.strip()):
        return line, 1.0
    weight, prompt = weight_in(head), rest.strip().removeprefix("::").strip()
    if weight is None or not prompt:
        raise ValueError(
            "a line must be a prompt or a positive weight, '::' and a prompt, such as "
            f"'2.0 :: a watercolor', with weights of {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, "
            f"got {quoted(line)}"
        )
    return rest.strip(), weight


def _is_meant_as_weight(head: str) -> bool:
    """Whether what stands before ``::`` is no word, or one that is a number in other places."""
    return set(head) <= NUMERIC or head.lower().lstrip("+-") in ("nan", "inf", "infinity")
