"""The blocks that a network is made of, found by its structure: no architecture is named."""

from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .overrides import every_module

__all__ = ["repeated_blocks"]

# They call their members themselves, or leave it to the code that owns them: never a block.
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def repeated_blocks(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """List the blocks below the roots; none lies inside another.

    A block is a member of a list or a sequence of modules, has several layers, and there are
    more of its class. One that consists mostly of smaller blocks (a stack of transformer blocks
    between two projections) leaves it to these; one that merely contains some (a layer of
    experts) does not.
    """
    kinds: Counter[tuple[int, type]] = Counter()
    members: dict[nn.Module, tuple[int, type]] = {}
    for k, root in enumerate(roots):
        for module in every_module([root]):
            if not isinstance(module, CONTAINERS):
                continue
            for member in module._modules.values():
                if member is not None and member not in members and _may_be_block(member):
                    members[member] = kind = (k, type(member))
                    kinds[kind] += 1
    candidates = {member for member, kind in members.items() if kinds[kind] > 1}
    seen: set[nn.Module] = set()
    return [block for root in roots for block in _outermost(root, candidates, seen)]


def _may_be_block(module: nn.Module) -> bool:
    scripted = isinstance(module, torch.jit.ScriptModule)  # its forward is not Python's
    runs = type(module).forward is not nn.Module.forward
    return runs and not scripted and not isinstance(module, CONTAINERS) and _layers(module) > 1


def _layers(module: nn.Module) -> int:
    return sum(not each._modules for each in every_module([module]))


def _outermost(
    module: nn.Module, candidates: set[nn.Module], seen: set[nn.Module]
) -> Iterator[nn.Module]:
    if module in seen:
        return
    seen.add(module)
    smaller = [
        block
        for child in module._modules.values()
        if child is not None
        for block in _outermost(child, candidates, seen)
    ]
    if module in candidates and 2 * sum(map(_layers, smaller)) <= _layers(module):
        yield module
    else:
        yield from smaller
