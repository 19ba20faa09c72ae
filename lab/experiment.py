"""One job of the tables: a batch of condition sets, guided by one method, measured and kept."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .attributes import Attribute
from .condition_sets import ConditionSet
from .evaluators.dlib_faces import shows_face
from .jobs import Job
from .pictures import Pictures
from .tasks import attributes_of
from .world import DemoWorld

# isort: split
from zmagic.guidance.conditions import Condition
from zmagic.guidance.trace import Trace

__all__ = ["Experiment"]

# Significant digits of what is kept, as the traces have it.
DIGITS = 6


@dataclass(frozen=True, eq=False)
class Experiment:
    """The things that all jobs share.

    Args:
        world: the demo model.
        attributes: by name.
        features: pictures to the features of the Frechet distance, ``[B, D]``; None without.
        pictures: keeps some of them to be looked at; None without.
        seed: the noise of a set depends on it and on the set's place, not on the method.
    """

    world: DemoWorld
    attributes: Mapping[str, Attribute]
    features: Callable[[Tensor], Tensor] | None
    pictures: Pictures | None = None
    seed: int = 1

    def measured(self, job: Job) -> list[dict]:
        """Make the pictures of a job: what each measures, in the order of its sets."""
        attributes = [self.attributes[name] for name in attributes_of(job.task)]
        attributes = attributes[: job.method.conditions]
        with torch.inference_mode(False), torch.no_grad():
            conditions = [_condition(attribute, job.sets) for attribute in attributes]
        if job.method.backwards:
            conditions.reverse()
        started = time.perf_counter()
        latents, trace = self.world.sample(
            conditions,
            replace(job.method.settings, strength=job.strength),
            seed=self.seed + job.sets[0].number,
            steps=job.steps * job.method.more_steps,
            batch=len(job.sets),
        )
        seconds = (time.perf_counter() - started) / len(job.sets)
        with torch.inference_mode(False), torch.no_grad():
            pictures = self.world.vae.decode(latents.clone()).movedim(-1, 1).float().clone()
            measured = _measured(attributes, pictures, job.sets)
            rows = [
                {**row, **_of_trace(trace, k), "face": shows_face(picture), "seconds": seconds}
                for k, (row, picture) in enumerate(zip(measured, pictures, strict=True))
            ]
            if self.features is not None:
                for row, feature in zip(rows, self.features(pictures), strict=True):
                    row["features"] = [float(f"{value:.{DIGITS}g}") for value in feature.tolist()]
        if self.pictures is not None:
            self.pictures.keep(job.runs, pictures)
        return rows


def _condition(attribute: Attribute, sets: Sequence[ConditionSet]) -> Condition:
    return Condition(attribute.name, attribute.energy(sets))


def _measured(
    attributes: Sequence[Attribute], pictures: Tensor, sets: Sequence[ConditionSet]
) -> list[dict]:
    """The distances by attribute of each picture, as the guide and as the evaluator see them."""
    found = {
        "guide": {a.name: a.by_guide(pictures, sets) for a in attributes},
        "evaluator": {a.name: a.by_evaluator(pictures, sets) for a in attributes},
    }
    return [
        {role: {name: values[k] for name, values in each.items()} for role, each in found.items()}
        for k in range(len(sets))
    ]


def _of_trace(trace: Trace, k: int) -> dict:
    """Return what the trace says of picture k of its batch."""
    energies = {
        name: [step.energies[j][k] for step in trace.steps]
        for j, name in enumerate(trace.steps[0].conditions)
    }
    totals = trace.totals()
    plain = totals["plain_denoiser_forwards"]
    return {
        "energies": {name: [*line, trace.final[name][k]] for name, line in energies.items()},
        "cosine": [_mean_cosine(step.cosines[k]) for step in trace.steps if step.cosines],
        "forwards": totals["forwards"].get("denoiser", 0) + plain,
        "backwards": totals["backwards"].get("denoiser", 0),
    }


def _mean_cosine(matrix: Sequence[Sequence[float]]) -> float:
    pairs = [matrix[i][j] for i in range(len(matrix)) for j in range(i)]
    return sum(pairs) / len(pairs) if pairs else 1.0
