"""How the commands of the lab introduce themselves."""

import argparse

__all__ = ["described"]


def described(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m lab.NAME``.

    Args:
        name: the command's module below ``lab``.
        description: the module's docstring; ``--help`` shows its first line.
    """
    return argparse.ArgumentParser(
        prog=f"python -m lab.{name}", description=description.splitlines()[0]
    )
