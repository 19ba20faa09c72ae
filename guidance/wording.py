"""How messages quote what people wrote, and what other libraries say."""

import re
from collections.abc import Iterable

__all__ = ["LONGEST_QUOTE", "encodable", "numbered", "one_line", "printable", "quoted"]

# Characters of a text that a message repeats: it is read in a narrow column.
LONGEST_QUOTE = 80

# Characters of another library's message that help in ours.
LONGEST_DETAIL = 200

# What terminals take for colors and the like.
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def quoted(value: object, longest: int = LONGEST_QUOTE) -> str:
    """``value`` as Python writes it, such as ``'a cat'``, cut in the middle if it is long.

    Characters that cannot be printed or encoded, lone surrogates above all, are escaped: a logger
    that fails at a message would end whatever wrote it.
    """
    if isinstance(value, str) and len(value) > longest:
        half = (longest - 5) // 2
        value = f"{value[:half]} ... {value[-half:]}"
    text = repr(value)
    # The representations of other objects may hold texts as they are.
    text = printable(text)
    return text if isinstance(value, str) or len(text) <= longest else text[:longest] + "..."


def printable(text: str) -> str:
    """Return ``text`` with lone surrogates, which no encoding has, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def numbered(pictures: Iterable[int]) -> str:
    """Pictures, from 0, as people count them: their numbers from 1."""
    return ", ".join(str(b + 1) for b in sorted(pictures))


def encodable(text: str) -> str:
    """Return ``text`` without lone surrogates, for libraries that encode it."""
    return text.encode("utf-8", "ignore").decode("utf-8")


def one_line(reason: object) -> str:
    """Cut an error or a text of another library to one line for our messages."""
    text = printable(TERMINAL_CODES.sub("", str(reason)))
    text = " ".join(text.split()) or type(reason).__name__
    return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "..."
