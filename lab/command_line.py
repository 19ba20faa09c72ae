"""How the commands of the lab introduce themselves."""

import argparse
from collections.abc import Callable
from typing import TypeVar

__all__ = ["checked", "described"]

T = TypeVar("T")


def described(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m lab.NAME``.

    Args:
        name: the command's module below ``lab``.
        description: the module's docstring; ``--help`` shows its first line.
    """
    return argparse.ArgumentParser(
        prog=f"python -m lab.{name}", description=description.splitlines()[0]
    )


def checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """A type of arguments whose ``ValueError`` the parser prints as it is."""

    def read_argument(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read_argument
