"""ControlNets and their like, which run inside each evaluation of the model: their networks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from .blocks import repeated_blocks

__all__ = ["control_networks", "control_share"]

# A control that has no network before the sampling begins is taken for this share of the model's
# blocks: a control LoRA takes the first half of them.
HALF = 0.5


def control_networks(conds: Mapping[str, Iterable[dict]]) -> list[nn.Module]:
    """List the networks of all controls in a guider's ``conds``, each once."""
    every = [cond for each in conds.values() for cond in each]
    networks = [_network(control) for cond in every for control in _controls(cond)]
    return list(dict.fromkeys(network for network in networks if network is not None))


def control_share(cond: dict, model: nn.Module) -> float:
    """How much of the model's network the controls of a conditioning are, by their blocks."""
    networks = [_network(control) for control in _controls(cond)]
    blocks = max(1, len(repeated_blocks([model]))) if networks else 1
    return sum(HALF if each is None else len(repeated_blocks([each])) / blocks for each in networks)


def _controls(cond: dict) -> Iterator[Any]:
    """The control of a conditioning, and those that it goes on from."""
    control = cond.get("control")
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)


def _network(control: Any) -> nn.Module | None:
    network = getattr(control, "control_model", None)
    return network if isinstance(network, nn.Module) else None
