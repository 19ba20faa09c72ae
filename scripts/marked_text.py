"""Text between two marks of a file, which a script writes anew."""

from __future__ import annotations

import re

__all__ = ["replaced_between"]


def replaced_between(text: str, before: str, after: str, content: str) -> str:
    """``text`` with ``content`` in place of what stands between two marks, which stay.

    Raises ValueError where it has not exactly one pair of them.
    """
    marked = re.compile(f"{re.escape(before)}.*?{re.escape(after)}", re.DOTALL)
    found, count = marked.subn(lambda _: f"{before}{content}{after}", text)
    if count != 1:
        pair = f"'{before.strip()}' and '{after.strip()}'"
        raise ValueError(f"expected one pair of the lines {pair}, found {count}")
    return found
