"""Names and advice around the sentence of an error that its reader can correct.

The code that finds something wrong says so in its own terms. Whoever called it knows more: which
condition, which node, what to turn there. That is added on the way out, once, by the context
managers of this module. Everything else passes as it is: bugs, interruptions, a lack of memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["USER_ERRORS", "advised", "named"]

# What this package raises with a sentence for its reader. Subclasses are other code's, which has
# not written for ours: a UnicodeDecodeError is a bug.
USER_ERRORS = (ValueError, FileNotFoundError)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put ``name`` and a colon in front of the sentence of an error, unless it starts with them.

    Raises:
        ValueError, FileNotFoundError: what was raised inside, with the name.
    """
    try:
        yield
    except USER_ERRORS as error:
        if not _is_sentence(error) or str(error).startswith(f"{name}: "):
            raise
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Put ``advice`` on a line of its own after the sentence of an error.

    Raises:
        ValueError, FileNotFoundError: what was raised inside, with the advice.
    """
    try:
        yield
    except USER_ERRORS as error:
        if not _is_sentence(error):
            raise
        raise type(error)(f"{error}\n{advice}") from error


def _is_sentence(error: Exception) -> bool:
    """Whether an error is one of ours: of a plain type, with a sentence as its only argument."""
    return type(error) in USER_ERRORS and len(error.args) == 1 and isinstance(error.args[0], str)
