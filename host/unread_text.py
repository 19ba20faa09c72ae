"""The end of a prompt that a text tower does not read."""

from collections.abc import Callable, Hashable

__all__ = ["unread_end"]

# No tower reads more characters of a prompt.
LONGEST_READ = 4_000


def unread_end(text: str, tokens: Callable[[str], Hashable]) -> str:
    """Find the end of a prompt that a text tower does not read, empty if it reads all of it.

    Args:
        tokens: makes of a text the tokens that the tower gets, at most as many as it reads.
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
