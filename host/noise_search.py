"""A sampler that searches its noise, and then samples as the one that it stands for.

It runs inside the host's own sampling: models are loaded, conditionings and ControlNets are
prepared once, and whatever ends the run, the host cleans up as always.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.samplers
import torch
from torch import Tensor

from .gradients import normal
from .neighbor_state import NeighborState
from .overrides import Overrides

if TYPE_CHECKING:
    from .run import HostRun

__all__ = ["SearchedNoise"]

DECORATED = torch.no_grad()(lambda: None)


class SearchedNoise(comfy.samplers.Sampler):
    """The host's ``sampler``, from the best noise that a search of ``run`` finds."""

    def __init__(self, sampler: Any, run: "HostRun"):
        self._sampler, self._run = sampler, run

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Search, then sample; the arguments are those of the host's samplers."""
        run, engine = self._run, self._run.engine
        levels, *images = (_normal(each) for each in (sigmas, latent_image, denoise_mask))
        # Other packs begin each of the samplings as they would begin a single one.
        before = NeighborState(extra_args["model_options"], noise.device)

        def picture(candidate: Tensor) -> Tensor:
            with before.again() as options, _with_gradients(self._sampler) as sampler:
                arguments = {**extra_args, "model_options": options}
                ends = (None, candidate, *images, True)
                return sampler.sample(model_wrap, levels, arguments, *ends)

        run.searching = True
        try:
            found = engine.search(_normal(noise), picture)
        finally:
            run.searching = False
        if run.attachment.on_noise is not None:
            run.attachment.on_noise(found.cpu())
        rest = (callback, found, latent_image, denoise_mask, disable_pbar)
        with before.again() as options:
            arguments = {**extra_args, "model_options": options}
            return self._sampler.sample(model_wrap, sigmas, arguments, *rest)

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        """As the sampler has it."""
        return self._sampler.max_denoise(model_wrap, sigmas)


def _normal(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else normal(tensor)


@contextmanager
def _with_gradients(sampler: Any) -> Iterator[Any]:
    """The sampler without the ``no_grad`` around its function, and around those that it calls.

    The host's module has them under their names again at the end of the block.
    """
    function = getattr(sampler, "sampler_function", None)
    module = sys.modules.get(getattr(function, "__module__", ""))
    overrides = Overrides()
    try:
        for name, value in list(vars(module).items()) if module else ():
            if _is_decorated(value):
                overrides.set(module, name, value.__wrapped__)
        if _is_decorated(function):
            sampler = copy.copy(sampler)
            sampler.sampler_function = function.__wrapped__
        yield sampler
    finally:
        overrides.restore()


def _is_decorated(function: Any) -> bool:
    """Whether ``no_grad`` or its like was put around a function: all share the code of one."""
    return getattr(function, "__code__", None) is DECORATED.__code__
