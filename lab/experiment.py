"""One job of the tables: a batch of condition sets, guided by one method, measured and kept."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .attributes import Attribute
from .candidates import best_candidates, candidates_for
from .condition_sets import ConditionSet
from .evaluators.dlib_faces import shows_face
from .jobs import Job
from .methods import UNGUIDED, Method
from .pictures import Pictures
from .tasks import attributes_of
from .world import DemoWorld

# isort: split
from zmagic.guidance.conditions import Condition
from zmagic.guidance.operations import OperationCounter
from zmagic.guidance.trace import Trace

__all__ = ["Experiment"]

# Significant digits of what is kept, as the traces have it.
DIGITS = 6
# Between the seeds of a picture's candidates: further apart than those of condition sets.
SEEDS_APART = 1_000_003
WAYS = ("forwards", "backwards")

Sets = Sequence[ConditionSet]


@dataclass(frozen=True, eq=False)
class Experiment:
    """The things that all jobs share.

    Args:
        world: the demo model.
        attributes: by name.
        features: pictures to the features of the Frechet distance, ``[B, D]``; None without.
        pictures: keeps some of them to be looked at; None without.
        seed: the noise of a set depends on it and on the set's place, not on the method.
        prompts: whether the model follows the captions of the sets, too.
    """

    world: DemoWorld
    attributes: Mapping[str, Attribute]
    features: Callable[[Tensor], Tensor] | None
    pictures: Pictures | None = None
    seed: int = 1
    prompts: bool = False

    def measured(self, job: Job) -> list[dict]:
        """Make the pictures of a job: what each measures, in the order of its sets."""
        attributes = [self.attributes[name] for name in attributes_of(job.task)]
        attributes = attributes[: job.method.conditions]
        with torch.inference_mode(False), torch.no_grad():
            conditions = [_condition(attribute, job.sets) for attribute in attributes]
        if job.method.backwards:
            conditions.reverse()
        started = time.perf_counter()
        tries = [self._sampled(job, conditions, k) for k in range(job.method.candidates)]
        best = best_candidates([trace.final for _, trace in tries]) if len(tries) > 1 else None
        kept = [tries[place] for place in best or [0] * len(job.sets)]
        seconds = (time.perf_counter() - started) / len(job.sets)
        traces = [trace for _, trace in tries]
        shared = {
            "seconds": seconds,
            "operations": self._operations(job, conditions, traces),
            "candidates": len(tries),
            **{way: sum(_of_model(trace)[way] for trace in traces) for way in WAYS},
        }
        with torch.inference_mode(False), torch.no_grad():
            pictures = self._decoded(torch.stack([each[k] for k, (each, _) in enumerate(kept)]))
            measured = _measured(attributes, pictures, job.sets)
            rows = [
                {**row, **_of_trace(trace, k), "face": shows_face(picture), **shared}
                for k, (row, picture, (_, trace)) in enumerate(
                    zip(measured, pictures, kept, strict=True)
                )
            ]
            if job.method.name == UNGUIDED:
                for row, real in zip(rows, _of_real(attributes, job.sets), strict=True):
                    row["real"] = real
            if self.features is not None:
                for row, feature in zip(rows, self.features(pictures), strict=True):
                    row["features"] = [float(f"{value:.{DIGITS}g}") for value in feature.tolist()]
        if self.pictures is not None:
            self.pictures.keep(job.runs, pictures)
        return rows

    def candidates_of(
        self, task: str, method: Method, other: Method, sets: Sets, steps: int
    ) -> int:
        """How many candidates of a method take the operations of another one."""
        runs = [
            self._one(Job("count", task, each, each.settings.strength, steps, tuple(sets)))
            for each in (other, replace(method, candidates=1))
        ]
        (operations, _), (one, judging) = runs
        return candidates_for(operations, one, judging)

    def _one(self, job: Job) -> tuple[float, float]:
        """Operations of one candidate of a job and of its judging, in plain pictures."""
        with torch.inference_mode(False), torch.no_grad():
            names = attributes_of(job.task)
            conditions = [_condition(self.attributes[name], job.sets) for name in names]
        _, trace = self._sampled(job, conditions, 0)
        return _operations_of(job, trace) or 1.0, self._judging(job, conditions)

    def _sampled(
        self, job: Job, conditions: Sequence[Condition], candidate: int
    ) -> tuple[Tensor, Trace]:
        """Latents and trace of one candidate of each picture; the first has the others' noise."""
        return self.world.sample(
            conditions,
            replace(job.method.settings, strength=job.strength),
            seed=self.seed + job.sets[0].number + candidate * SEEDS_APART,
            steps=job.steps * job.method.more_steps,
            batch=len(job.sets),
            sampler=job.method.sampler,
            prompts=[wanted.person.caption for wanted in job.sets] if self.prompts else None,
        )

    def _decoded(self, latents: Tensor) -> Tensor:
        return self.world.vae.decode(latents.clone()).movedim(-1, 1).float().clone()

    def _operations(
        self, job: Job, conditions: Sequence[Condition], traces: Sequence[Trace]
    ) -> float | None:
        """Operations of each picture, in plain pictures; None if they could not be counted."""
        each = [_operations_of(job, trace) for trace in traces]
        if any(operations is None for operations in each):
            return None
        chosen = len(traces) * self._judging(job, conditions) if len(traces) > 1 else 0.0
        return sum(each) + chosen

    def _judging(self, job: Job, conditions: Sequence[Condition]) -> float:
        """What judging a candidate takes, in plain pictures: it is decoded, and seen by all."""
        with torch.inference_mode(False), torch.no_grad(), OperationCounter() as counter:
            latents = torch.zeros(len(job.sets), *self.world.latent_shape)
            pictures = self._decoded(latents)
            for condition in conditions:
                condition.energy(pictures, None)
        plain = job.steps * self.world.forward_operations(self.prompts)
        return sum(counter.totals.values()) / (len(job.sets) * plain)


def _operations_of(job: Job, trace: Trace) -> float | None:
    """The operations of one sampling, in plain pictures of the task's steps."""
    if not job.method.guided:
        return float(job.method.more_steps)
    total = trace.cost.get("total")
    return None if total is None else total * job.method.more_steps


def _of_model(trace: Trace) -> dict[str, int]:
    totals = trace.totals()
    plain = totals["plain_denoiser_forwards"]
    return {
        "forwards": totals["forwards"].get("denoiser", 0) + plain,
        "backwards": totals["backwards"].get("denoiser", 0),
    }


def _of_real(attributes: Sequence[Attribute], sets: Sequence[ConditionSet]) -> list[dict]:
    """The distances of real pictures that satisfy the conditions of each set."""
    found = {
        "guide": {a.name: a.real_by_guide(sets) for a in attributes},
        "evaluator": {a.name: a.real_by_evaluator(sets) for a in attributes},
    }
    return _by_set(found, len(sets))


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
    return _by_set(found, len(sets))


def _by_set(found: Mapping[str, Mapping[str, Sequence]], count: int) -> list[dict]:
    return [
        {role: {name: values[k] for name, values in each.items()} for role, each in found.items()}
        for k in range(count)
    ]


def _of_trace(trace: Trace, k: int) -> dict:
    """Return what the trace says of picture k of its batch."""
    energies = {
        name: [step.energies[j][k] for step in trace.steps]
        for j, name in enumerate(trace.steps[0].conditions)
    }
    return {
        "energies": {name: [*line, trace.final[name][k]] for name, line in energies.items()},
        "cosine": [_mean_cosine(step.cosines[k]) for step in trace.steps if step.cosines],
    }


def _mean_cosine(matrix: Sequence[Sequence[float]]) -> float:
    pairs = [matrix[i][j] for i in range(len(matrix)) for j in range(i)]
    return sum(pairs) / len(pairs) if pairs else 1.0
