"""Attributes of objects that are other ones for a while, and the walk that finds modules."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

__all__ = ["Overrides", "every_module"]

_ABSENT = object()


class Overrides:
    """Attributes set on instances for a while, and how to take them back."""

    def __init__(self) -> None:
        self._previous: list[tuple[dict, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        # Not setattr: a network's search for parameters and buffers costs more than the entry.
        attributes = owner.__dict__
        self._previous.append((attributes, name, attributes.get(name, _ABSENT)))
        attributes[name] = value

    def restore(self) -> None:
        while self._previous:
            attributes, name, value = self._previous.pop()
            if value is _ABSENT:
                attributes.pop(name, None)
            else:
                attributes[name] = value


def every_module(roots: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Every module below the roots once; several times faster than ``nn.Module.modules``."""
    seen: set[nn.Module] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        waiting.extend(module._modules.values())
        yield module
