"""Prompts as people write them: one a line, with weights; and what of them a text tower reads."""

from collections.abc import Callable, Hashable

from ..numbers import LARGEST_WEIGHT, SMALLEST_WEIGHT, weight_in
from ..wording import quoted

__all__ = ["MOST_PROMPTS", "parse_prompts", "unread_end"]

# Each prompt is a pass of the text tower.
MOST_PROMPTS = 256

# Characters of all lines together; towers read a few hundred of each.
LONGEST_TEXT = 100_000

# No tower reads more of one.
LONGEST_READ = 4_000

# What may stand in a number, right or wrong, before "::".
NUMERIC = frozenset("0123456789.,+-eE%_ \t")


def parse_prompts(text: str) -> list[tuple[str, float]]:
    """Prompts and their weights: one prompt a line, ``2.0 :: a watercolour`` counts twice.

    Without ``number ::`` in front a line is a prompt of weight 1 as it stands, colons included.
    Empty lines are left out.

    Raises:
        ValueError: a weight is no number of 1e-6 to 1e6, or stands before no prompt; there are more
            than MOST_PROMPTS lines, or more text than anybody writes.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(
            f"are {len(text):,} characters, expected at most {LONGEST_TEXT:,}: shorten the text"
        )
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if len(lines) > MOST_PROMPTS:
        raise ValueError(
            f"are {len(lines):,} lines, expected at most {MOST_PROMPTS} prompts, one a line"
        )
    return [_parsed(line) for line in lines]


def unread_end(text: str, tokens: Callable[[str], Hashable]) -> str:
    """The end of a prompt that a text tower does not read, empty if it reads all of it.

    Args:
        tokens: what the tower gets of a text; at most so much as it reads.
    """
    text = text.strip()
    all_read = tokens(text)
    if tokens(f"{text} x") != all_read:
        return ""  # there is room for more
    shortest, longest = 0, len(text)
    if tokens(text[:LONGEST_READ]) == all_read:
        longest = min(longest, LONGEST_READ)
    while shortest < longest:  # the shortest beginning that makes the same tokens
        middle = (shortest + longest) // 2
        if tokens(text[:middle]) == all_read:
            longest = middle
        else:
            shortest = middle + 1
    return text[shortest:].strip()


def _parsed(line: str) -> tuple[str, float]:
    head, colons, rest = line.partition("::")
    if not colons or not _is_meant_as_weight(head.strip()):
        return line, 1.0
    weight, prompt = weight_in(head), rest.strip().removeprefix("::").strip()
    if weight is None or not prompt:
        raise ValueError(
            "a line must be a prompt or a positive weight, '::' and a prompt, such as "
            f"'2.0 :: a watercolour', with weights of {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, "
            f"got {quoted(line)}"
        )
    return rest.strip(), weight


def _is_meant_as_weight(head: str) -> bool:
    """Whether what stands before ``::`` is no word, or one that is a number in other places."""
    return set(head) <= NUMERIC or head.lower().lstrip("+-") in ("nan", "inf", "infinity")
