"""The host's own nodes that patch a MODEL, found in the host, with inputs that they accept.

Nothing is listed by name except where a node needs a certain value, so that nodes of later hosts
are found too. A node that needs a file, or an object made from one, is left out.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import nodes
import torch

from .architectures import Specimen

# Values with which a node acts at the one noise level of a test, and acts the same way each time
# it is asked: a difference quotient needs a function.
WIDGETS = {
    "start_percent": 0.0,
    "end_percent": 1.0,
    "start_sigma": 1000.0,
    "layers": "0",
    "double_layers": "0",
    "single_layers": "0",
    "block_number": 1,
    "momentum": 0.0,  # APG's running average changes with every evaluation
    "reuse_threshold": 0.0,  # of caches: 0 never reuses
    "max_gpus": 1,
}
LEFT_OUT = {"TorchCompileModel"}  # compiled models have a test of their own


@cache
def model_patching_nodes() -> dict[str, Any]:
    """Name -> node class, of every node that returns a MODEL and whose inputs can be made."""
    asyncio.run(nodes.init_builtin_extra_nodes())
    return {
        name: node
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        if name not in LEFT_OUT and _patches(node)
    }


def patched(node, specimen: Specimen, other: Specimen) -> Any:
    """The MODEL that ``node`` makes of the specimen's (and of ``other``'s, if it merges two)."""
    models = iter([specimen.patcher, other.patcher])
    inputs = {}
    for name, kind, options in _inputs(node):
        if kind == "MODEL":
            inputs[name] = next(models)
        elif kind in _OBJECTS:
            inputs[name] = _OBJECTS[kind](specimen)
        else:
            inputs[name] = _widget(name, kind, options)
    return call(node, **inputs)


def call(node, **inputs) -> Any:
    """The first output of a node, of the old kind or the new."""
    return getattr(node(), node.FUNCTION)(**inputs)[0]


def _patches(node) -> bool:
    if "MODEL" not in node.RETURN_TYPES or node.__module__.startswith("zmagic"):
        return False
    inputs = list(_inputs(node))
    return any(kind == "MODEL" for _, kind, _ in inputs) and all(
        kind == "MODEL" or kind in _OBJECTS or _widget(name, kind, options) is not None
        for name, kind, options in inputs
    )


def _inputs(node) -> Iterator[tuple[str, str, dict]]:
    """Name, type and options of each required input."""
    for name, (kind, *options) in node.INPUT_TYPES().get("required", {}).items():
        options = dict(options[0]) if options else {}
        if isinstance(kind, list):  # how the older kind of node writes a combo
            kind, options["options"] = "COMBO", kind
        yield name, kind, options


def _tone_map(specimen: Specimen) -> Callable:
    return call(nodes.NODE_CLASS_MAPPINGS["LatentOperationTonemapReinhard"], multiplier=0.9)


_OBJECTS: dict[str, Callable[[Specimen], Any]] = {
    "CONDITIONING": lambda specimen: specimen.negative,
    "LATENT": lambda specimen: {"samples": torch.zeros_like(specimen.latent)},
    "LATENT_OPERATION": _tone_map,
}


def _widget(name: str, kind: str, options: dict) -> Any:
    """A value for a widget; None for a socket and for a list of files of which there are none."""
    if name in WIDGETS:
        return WIDGETS[name]
    if kind == "COMBO":
        choices = options.get("options") or [None]
        return options.get("default", choices[0])
    if kind != "FLOAT":
        return options.get("default")
    # A little off the default, which often means that the node does nothing.
    value = 0.9 * options.get("default", 1.0) or 0.1
    return min(max(value, options.get("min", value)), options.get("max", value))
