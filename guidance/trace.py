"""The record of a guided run, step by step, as plain numbers."""

import json
import logging
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from .means import mean_in_words
from .norms import inner_products
from .outcome import Outcome, in_words, outcomes, satisfaction
from .wording import printable

__all__ = [
    "Calibration",
    "Candidate",
    "ConditionFacts",
    "FoundNoise",
    "StepRecord",
    "Trace",
    "cosines",
    "cosines_of",
    "rounded",
]

log = logging.getLogger(__name__)

# The number of the report's format, which changes when something in it gets another meaning.
FORMAT = 1
DIGITS = 6  # significant digits of a reported number


@dataclass
class StepRecord:
    """One guided evaluation. Lists are per condition, task or pair, innermost per sample.

    ``energies`` are those of the prediction before the correction; ``cosines`` are between the
    conditions' own gradients, ``task_cosines`` between the tasks that were made of them, where
    each condition has one (after dependence); ``balance`` are the weights of the tasks;
    ``correction`` is RMS(D' - D). ``forwards`` and ``backwards`` count evaluations by stage.
    ``satisfied`` tells which conditions were no task, since they were satisfied, per condition and
    sample; it is empty if none was.
    """

    step: int
    sigma: float
    conditions: list[str]
    energies: list[list[float]]
    cosines: list[list[list[float]]] = field(default_factory=list)
    task_cosines: list[list[list[float]]] = field(default_factory=list)
    balance: list[list[float]] = field(default_factory=list)
    order: list[list[int]] = field(default_factory=list)
    correction: list[float] = field(default_factory=list)
    satisfied: list[list[bool]] = field(default_factory=list)
    path: str = "measure"
    forwards: dict[str, int] = field(default_factory=dict)
    backwards: dict[str, int] = field(default_factory=dict)
    energy_calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ConditionFacts:
    """A condition of a run: its weight, its window, the energy of its goal if it knows one.

    ``face_looks`` are those that found a face, and all of them, if it looks for one;
    ``satisfied_at`` is the energy below which it does not pull; ``unseen`` are the finished
    pictures, from 0, in which what it is about was not seen: it has no energy there.
    """

    name: str
    weight: float = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    goal: float | None = None
    face_looks: tuple[int, int] | None = None
    satisfied_at: float | None = None
    unseen: list[int] = field(default_factory=list)


@dataclass
class Candidate:
    """One of several seeds: what its first steps came to.

    ``energies`` are by condition, one for each picture; ``score`` is that of ``ranking.scores``
    among all candidates, None without energies.
    """

    seed: int
    score: float | None = None
    energies: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """The strength that a run found for itself, and by what.

    ``energies`` are those of the conditions that had a gradient then, each without a correction and
    at every strength tried, averaged over the pictures; ``rising`` names the conditions that even
    the smallest did not lower, which was taken then; ``step`` is the sampler's.
    """

    strength: float
    step: int
    tried: list[float]
    conditions: list[str]
    energies: list[list[float]]
    rising: list[str]

    @property
    def warnings(self) -> list[str]:
        """What should be otherwise, as one sentence or none."""
        if not self.rising:
            return []
        names = " and ".join(self.rising)
        return [
            f"calibrate found no strength at which all conditions fall: {names} did not at the "
            f"smallest, {self.strength:g}, which is taken. Switch calibrate off and set "
            f"'strength', or lower the weights of the conditions that pull against {names}"
        ]

    def words(self) -> str:
        """What was found, for the log."""
        place = 1 + self.tried.index(self.strength)
        changes = (
            f"{name} {values[0]:.3g} -> {values[place]:.3g}"
            for name, values in zip(self.conditions, self.energies, strict=True)
        )
        return f"calibrated: strength {self.strength:.3g}, {', '.join(changes)}"


@dataclass(frozen=True)
class FoundNoise:
    """What a search for a noise came to.

    ``evaluations`` are the noises that were looked at; ``best`` the number of the best one, from 0,
    for each picture; ``rate`` and ``white`` are those of ``NoiseSearch``.
    """

    evaluations: int
    best: list[int]
    rate: float
    white: bool


@dataclass
class Trace:
    """The records of a run, its settings, warnings, and the energies of the finished image.

    ``about`` tells what was sampled: seed, model, versions; ``conditions`` are the facts of each;
    ``unguided`` the energies of the same picture without guidance, if it was made; ``calibration``
    what the run found its strength by, None if it is the one that is set; ``candidates`` the seeds
    of which this run's is the best, if there were several; ``noise`` what the search for its noise
    found, None if there was none. ``warnings`` say what should be
    otherwise, ``notes`` what is worth knowing. ``predictions`` are the evaluations of the model
    that the run would have taken without guidance.
    """

    settings: dict
    steps: list[StepRecord] = field(default_factory=list)
    final: dict[str, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plain_forwards: int = 0
    # Operations of all steps in those of plain sampling: by stage, "networks", and their "total".
    cost: dict[str, float] = field(default_factory=dict)
    extra_forwards: dict[str, int] = field(default_factory=dict)  # besides those of the steps
    about: dict[str, Any] = field(default_factory=dict)
    conditions: list[ConditionFacts] = field(default_factory=list)
    unguided: dict[str, list[float]] = field(default_factory=dict)
    calibration: Calibration | None = None
    candidates: list[Candidate] = field(default_factory=list)
    predictions: int = 0
    noise: FoundNoise | None = None

    def warn_once(self, message: str) -> bool:
        """Keep the message; True if it is new."""
        if message in self.warnings:
            return False
        self.warnings.append(message)
        return True

    def warn(self, message: str) -> None:
        """Keep a warning for the report and log it, once."""
        if self.warn_once(message):
            log.warning("Z-Magic: %s", printable(message))

    def totals(self) -> dict:
        """Evaluations and seconds summed over the run."""
        forwards: dict[str, int] = dict(self.extra_forwards)
        backwards: dict[str, int] = {}
        for record in self.steps:
            for total, part in (
                (forwards, record.forwards),
                (backwards, record.backwards),
            ):
                for stage, count in part.items():
                    total[stage] = total.get(stage, 0) + count
        return {
            "guided_evaluations": sum(record.path != "measure" for record in self.steps),
            "plain_denoiser_forwards": self.plain_forwards,
            "forwards": forwards,
            "backwards": backwards,
            "energy_calls": sum(record.energy_calls for record in self.steps),
            "seconds": rounded(sum(record.seconds for record in self.steps)),
        }

    def to_json(self) -> str:
        """The whole trace as JSON; a number that is not finite becomes null."""
        return json.dumps(self.content(), allow_nan=False)

    def content(self) -> dict[str, Any]:
        """The whole trace as JSON holds it (docs/report.md); what is not finite is None."""
        content = {
            "format": FORMAT,
            "about": self.about,
            "settings": self.settings,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "conditions": [asdict(facts) for facts in self.conditions],
            "totals": self.totals(),
            "cost": self.cost,
            "final": self.final,
            "unguided": self.unguided,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "noise": asdict(self.noise) if self.noise else None,
            "warnings": self.warnings,
            "notes": self.notes,
            "steps": [asdict(record) for record in self.steps],
        }
        content = _finite(content)
        made = {outcome.name: outcome for outcome in outcomes(content)}
        for facts in content["conditions"]:
            facts |= _numbers(made.get(facts["name"]))
            facts |= asdict(satisfaction(content, facts["name"]))
        return {**content, "words": in_words(content)}

    def words(self) -> str:
        """One sentence about the run, for those who made it."""
        return self.content()["words"]

    def summary(self) -> str:
        """One line about the run for the log."""
        totals = self.totals()
        forwards = totals["forwards"].get("denoiser", 0)
        backwards = totals["backwards"].get("denoiser", 0)
        change = ", ".join(
            f"{name} {mean_in_words(self._first(name), 4)} -> {mean_in_words(values, 4)}"
            for name, values in self.final.items()
        )
        shares = ", ".join(f"{part} {x:.3g}" for part, x in self.cost.items() if part != "total")
        cost = f"; {self.cost['total']:.3g} times plain sampling ({shares})" if self.cost else ""
        return (
            f"Z-Magic: {totals['guided_evaluations']} guided evaluations "
            f"({forwards} denoiser forwards, {backwards} backwards, "
            f"{totals['seconds']:.3g} s{cost}); {change or 'no condition'}"
        )

    def _first(self, name: str) -> list[float]:
        """A condition's energies when it was first evaluated and seen."""
        for record in self.steps:
            if name in record.conditions:
                energies = record.energies[record.conditions.index(name)]
                if not all(map(math.isnan, energies)):
                    return energies
        return self.final[name]


def cosines(vectors: list[Tensor]) -> Tensor:
    """Pairwise cosines ``[B, n, n]`` of n tensors ``[B, ...]``; 0 where one of them is 0."""
    return cosines_of(inner_products(torch.stack(vectors, dim=1)))


def cosines_of(products: Tensor) -> Tensor:
    """The cosines ``[B, n, n]`` of vectors by their inner products; 0 where one of them is 0."""
    norms = products.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    scale = norms[:, :, None] * norms[:, None, :]
    tiny = torch.finfo(scale.dtype).tiny
    return torch.where(scale > 0.0, products / scale.clamp_min(tiny), 0.0)


def rounded(values: Any) -> Any:
    """Floats with ``DIGITS`` significant digits, of tensors and lists, too; integers stay."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().tolist()
    if isinstance(values, int):
        return values
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}")


def _numbers(outcome: Outcome | None) -> dict[str, float | None]:
    """An outcome as the report holds it."""
    names = ("start", "end", "unguided", "fall", "towards_goal")
    values = {name: getattr(outcome, name, None) for name in names}
    return {name: value if value is None else rounded(value) for name, value in values.items()}


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
