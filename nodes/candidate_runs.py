"""The first steps of several seeds, for Z-Magic Sampler: which one is worth the others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..guidance.candidates import chosen, put_into
from ..guidance.trace import Candidate, Trace
from .notices import say
from .titles import title

__all__ = ["Best", "best_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """The best of several seeds, and the first steps of all."""

    seed: int
    candidates: Sequence[Candidate]
    early: Sequence[Trace]

    def put_into(self, trace: Trace) -> None:
        """Add the candidates, and what they cost, to the trace of the run of this seed."""
        put_into(trace, self.candidates, self.early)


def best_of(
    node: type[io.ComfyNode],
    attached: Callable[..., Any],
    sampled: Callable[..., dict],
    seeds: Sequence[int],
    steps: int,
) -> Best | None:
    """Guide each seed for some steps, to the clean latent, and compare what is there.

    The best one is then sampled from its beginning: its picture is that of its seed alone, under
    every sampler.

    Args:
        node: the class that ComfyUI executes.
        attached: makes the guided model, see ``attach``, with what it is to call.
        sampled: the latent of a model, a seed and a number of steps.
        seeds: one for each candidate.
        steps: how many of the sampler's steps are made.

    Returns:
        None if the host samples nothing.
    """
    early: list[Trace] = []
    for number, seed in enumerate(seeds, start=1):
        place = f"candidate {number}/{len(seeds)}"
        log.info("%s: %s, seed %d, %d steps", title(node), place, seed, steps)
        model = attached(
            on_finish=early.append, on_look=lambda line, place=place: say(node, f"{place}, {line}")
        )
        sampled(model, seed, steps)
        if len(early) < number:
            return None
    place, candidates = chosen(seeds, early)
    log.info("%s: candidate %d of seed %d goes on", title(node), place + 1, seeds[place])
    return Best(seeds[place], candidates, early)
