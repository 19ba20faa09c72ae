"""Inputs of a node of which one has to be connected, and not the other."""

__all__ = ["require_one"]


def require_one(more: str = "", **inputs: object) -> None:
    """Refuse two inputs of which none, or both are connected.

    Args:
        more: what the sentence says besides.
        inputs: the two by their names; None: not connected.

    Raises:
        ValueError: not exactly one is connected.
    """
    first, second = inputs
    connected = sum(value is not None for value in inputs.values())
    if connected != 1:
        raise ValueError(
            f"expected either '{first}' or '{second}' to be connected, got "
            f"{'both' if connected else 'neither'}{more}"
        )
