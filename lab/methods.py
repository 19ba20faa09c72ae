"""The methods of the paper's tables and of the ablations, and what each costs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from zmagic.guidance.settings import NO_BACKPROP, PRESETS, GuidanceSettings

__all__ = [
    "ABLATIONS",
    "BASELINE",
    "BEST",
    "BEST_AT_QUALITY",
    "BEST_FREEDOM",
    "DEFAULT",
    "EQUAL_COST",
    "FAITHFUL",
    "MOST_CONDITIONS",
    "ONE_BACKWARD",
    "PLAIN",
    "QUALITY",
    "SAMPLER",
    "TUNED_AS",
    "UNGUIDED",
    "Method",
    "methods",
    "of_equal_cost",
    "sampler_of",
]

UNGUIDED, BASELINE, FAITHFUL = "unguided", "FreeDoM", "Z-Magic full"
DEFAULT, QUALITY, ONE_BACKWARD = "Z-Magic default", "Z-Magic quality", "FreeDoM, one backward"
# The best of N pictures by the energies that guide the others: N is found by measuring.
BEST, BEST_FREEDOM = "best of N", "best of N, FreeDoM"
BEST_AT_QUALITY = "best of N, as quality"
# Rows without guidance, which have no strength.
PLAIN = (UNGUIDED, BEST, BEST_AT_QUALITY)
# Rows whose strength is that of another one: choosing among pictures is no reason for more or less.
TUNED_AS = {BEST_FREEDOM: ONE_BACKWARD}

# The solver of all rows but one: DSG's step is one of the first order.
SAMPLER, FIRST_ORDER = "dpmpp_2m", "euler"
# The baseline with as many evaluations as the paper's chain: the better of these ways is taken.
EQUAL_COST = ("FreeDoM, time travel", "FreeDoM, more steps")

MOST_CONDITIONS = 6


@dataclass(frozen=True)
class Method:
    """One row of a table, up to the strength.

    Args:
        name: name of the row.
        settings: all but the strength.
        backwards: the conditions are connected in reversed order.
        more_steps: factor of the sampler's steps.
        conditions: only the first so many of the task; None: all.
        sampler: the solver, by ComfyUI's name.
        like: the row whose operations this one shall take, by as many candidates as that allows.
        candidates: pictures that are made of each, of which the one with the lowest energies is
            kept.
        family: the curve that the row is a point of, over the operations; empty for its own.
    """

    name: str
    settings: GuidanceSettings
    backwards: bool = False
    more_steps: int = 1
    conditions: int | None = None
    sampler: str = SAMPLER
    like: str = ""
    candidates: int = 1
    family: str = ""

    @property
    def guided(self) -> bool:
        """Return whether there is a strength to be chosen."""
        return self.settings.strength > 0.0

    def evaluations(self, n: int) -> float:
        """Forwards and backwards of the model for one sampler step of the task, n conditions.

        What is decoded for mean guidance and for smoothing is counted like them.
        """
        if not self.guided:
            return float(self.candidates)
        each = _per_step(self.settings, min(n, self.conditions or n))
        each += 2.0 * (_decodings(self.settings) - 1)
        each *= self.settings.time_travel * self.more_steps * self.candidates
        guided = self.settings.guided_share / self.settings.guide_every
        return each * guided + 1.0 - guided


def methods(n: int) -> tuple[Method, ...]:
    """The rows of a task of n conditions."""
    freedom, faithful = PRESETS["FreeDoM baseline"], PRESETS["faithful"]
    default, one = PRESETS["balanced"], replace(freedom, gradient_path="image")
    plain = replace(freedom, strength=0.0)
    tfg, ugd = PRESETS["TFG baseline"], PRESETS["UGD baseline"]
    best = {"family": "best of N"}
    ours, theirs = {"family": "Z-Magic"}, {"family": ONE_BACKWARD}
    prediction = replace(faithful, gradient_path="prediction")
    chain = replace(faithful, order="as_connected")
    times = math.ceil(_per_step(faithful, n) / _per_step(freedom, n))
    return (
        Method(UNGUIDED, plain, **best),
        Method(BASELINE, freedom),
        Method("FreeDoM + CAGrad", replace(freedom, balance="cagrad")),
        Method(ONE_BACKWARD, one, **theirs),
        Method("FreeDoM, one backward, three times", replace(one, time_travel=3), **theirs),
        Method("MPGD", PRESETS["MPGD baseline"]),
        Method("DSG", PRESETS["DSG baseline"], sampler=FIRST_ORDER),
        Method("TFG, small", replace(tfg, mean_steps=1, smoothing_samples=1), family="TFG"),
        Method("TFG", tfg),
        Method("UGD, once", replace(ugd, mean_steps=2, time_travel=1), family="UGD"),
        Method("UGD", ugd),
        Method(BEST, plain, like=DEFAULT, **best),
        Method(BEST_AT_QUALITY, plain, like=QUALITY, **best),
        Method(BEST_FREEDOM, one, like=DEFAULT),
        Method("chain as connected", chain),
        Method("chain reversed", chain, backwards=True),
        Method("Z-Magic image", replace(faithful, gradient_path="image")),
        Method("Z-Magic prediction", prediction),
        Method("Z-Magic fast", PRESETS["fast"], **ours),
        Method("Z-Magic few steps", PRESETS["few steps"], **ours),
        Method(DEFAULT, default, **ours),
        Method(QUALITY, PRESETS["quality"], **ours),
        # What the dependence is worth: all else is as in the default.
        Method("default, independent", replace(default, dependence="off", balance="sum")),
        Method(FAITHFUL, faithful),
        Method(EQUAL_COST[0], replace(freedom, time_travel=times)),
        Method(EQUAL_COST[1], freedom, more_steps=times),
    )


def sampler_of(settings: GuidanceSettings) -> str:
    """The solver by which settings do what they are for, by ComfyUI's name."""
    return FIRST_ORDER if settings.step_rule == "spherical" else SAMPLER


def of_equal_cost(names: Iterable[str]) -> list[str]:
    """The ways of equal cost among the names; only one of them gets into a table."""
    return [name for name in names if name in EQUAL_COST]


def _ablations() -> dict[str, tuple[Method, ...]]:
    faithful, freedom = PRESETS["faithful"], PRESETS["FreeDoM baseline"]

    def varied(field: str, values: Mapping[str, object]) -> tuple[Method, ...]:
        return tuple(
            Method(name, replace(faithful, **{field: value})) for name, value in values.items()
        )

    dependences = ("off", "first_order", "finite_difference", "exact")
    radii = {f"CAGrad, c = {c:g}": replace(faithful, cagrad_c=c) for c in (0.2, 0.4, 0.8)}
    chain = replace(faithful, order="as_connected")
    return {
        "dependence": varied("dependence", {value: value for value in dependences}),
        "balance": (
            *varied("balance", {"sum": "sum", "PCGrad": "pcgrad", "MGDA": "mgda"}),
            *(Method(name, settings) for name, settings in radii.items()),
        ),
        "order": (
            Method("symmetric", faithful),
            Method("as connected", chain),
            Method("reversed", chain, backwards=True),
            Method("auto", replace(faithful, order="auto")),
        ),
        "look-ahead": varied("look_ahead", {f"kappa = {k:g}": k for k in (0.01, 0.03, 0.1, 0.3)}),
        "number of conditions": tuple(
            Method(f"{name}, n = {n}", settings, conditions=n)
            for n in range(2, MOST_CONDITIONS + 1)
            for name, settings in ((BASELINE, freedom), (FAITHFUL, faithful))
        ),
    }


def _per_step(settings: GuidanceSettings, n: int) -> float:
    """Return the evaluations of a step by method sections 2 to 4.

    A double backward counts as two.
    """
    if settings.gradient_path in NO_BACKPROP:
        return 1.0
    if settings.gradient_path != "full":
        return 2.0
    if settings.dependence == "off" or n == 1:
        return 1.0 + n
    sources = n - 1 if settings.order == "as_connected" else n
    look_aheads = {"first_order": 2, "finite_difference": 4, "exact": 4}[settings.dependence]
    return 1.0 + n + sources * look_aheads


def _decodings(settings: GuidanceSettings) -> int:
    """How often a look decodes a prediction where nothing depends on each other."""
    behind = settings.gradient_path in NO_BACKPROP or settings.mean_share
    return settings.decodings * (settings.mean_steps + settings.backpropagates if behind else 1)


ABLATIONS = _ablations()
