"""How messages quote what people wrote."""

__all__ = ["LONGEST_QUOTE", "encodable", "printable", "quoted"]

# Characters of a text that a message repeats: it is read in a narrow column.
LONGEST_QUOTE = 80


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
    """``text`` with what no encoding has, lone surrogates, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def encodable(text: str) -> str:
    """``text`` without what no encoding has, for libraries that encode it."""
    return text.encode("utf-8", "ignore").decode("utf-8")
