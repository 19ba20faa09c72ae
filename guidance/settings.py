"""How to guide: every choice of the method, checked once, and the presets users pick from."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from .balance import BALANCERS
from .steps import PUBLISHED_UNIT, STEP_RULES

__all__ = ["CHOICES", "NO_BACKPROP", "PRESETS", "RANGES", "GuidanceSettings", "preset"]

# The same chain as `prediction` and `image`, without the denoiser's Jacobian.
NO_BACKPROP = ("no_backprop", "image_no_backprop")

CHOICES = {
    "gradient_path": ("full", "prediction", "image", *NO_BACKPROP),
    "dependence": ("exact", "finite_difference", "mutual", "first_order", "off"),
    "tasks": ("rows", "pairs"),
    "order": ("symmetric", "as_connected", "auto"),
    "balance": tuple(BALANCERS),
    "step_rule": tuple(STEP_RULES),
}
RANGES = {
    "strength": (0.0, math.inf),
    "look_ahead": (0.0, math.inf),
    "cagrad_c": (0.0, math.inf),
    "momentum": (0.0, 0.99),
    "random_shift": (0, 64),
    "guide_every": (1, 10_000),
    "guide_start": (0.0, 1.0),
    "guide_end": (0.0, 1.0),
    "guided_share": (0.0, 1.0),
    "time_travel": (1, 100),
    "travel_start": (0.0, 1.0),
    "travel_end": (0.0, 1.0),
    "fresh_noise": (0.0, 1.0),
    "mean_share": (0.0, 1.0),
    "mean_steps": (1, 1_000),
    "smoothing": (0.0, math.inf),
    "smoothing_samples": (1, 1_000),
}


@dataclass(frozen=True)
class GuidanceSettings:
    """Settings of a guided run; section numbers are those of the method.

    The defaults are the preset ``balanced``.

    Args:
        strength: size of the corrections, >= 0, in the same unit for the step rules ``posterior``
            and ``residual``, which all presets but DSG's have; by ``spherical`` a share, at most 1;
            0 leaves the sampling untouched (section 6).
        calibrate: whether the run finds its strength at its first look, in a range around
            ``strength`` (``calibration``).
        gradient_path: where the chain rule of the pairs is evaluated (section 4): in the noisy
            latent (``full``), the predicted clean latent (``prediction``) or the decoded image
            (``image``); ``no_backprop`` and ``image_no_backprop`` are the latter two with a
            scalar in place of the denoiser's Jacobian.
        dependence: how a pair's Hessian-vector product is evaluated (section 2); ``off`` treats
            the conditions as independent.
        look_ahead: kappa, the length of the look-ahead in units of the noise level (``full``,
            section 2) or of the posterior spread (the other paths, section 4).
        tasks: ``rows`` groups the pairs that share their first condition, ``pairs`` keeps all
            n(n-1) of them apart (section 3).
        order: which ordered pairs take part (section 7): all, those along the chain of nodes, or
            those along the order found in each step.
        balance, cagrad_c: how the tasks are combined, and CAGrad's radius c (section 5).
        step_rule: the length of each correction at strength 1 (section 6); ``posterior``: the
            posterior spread.
        mean_share: the share of the strength that goes to mean guidance, steps on the prediction
            itself; the rest goes to the direction that came through the denoiser. Without the
            denoiser's Jacobian all of it is mean guidance.
        mean_steps: how many steps mean guidance takes, each with a gradient of its own.
        smoothing: gamma, which makes energies those of the prediction's neighborhood, of this
            spread in units of the posterior spread; 0 for none.
        smoothing_samples: how many neighbors are drawn for it, and decoded at each evaluation.
        guide_every: k guides every k-th sampler step.
        guide_start, guide_end: the window of the sampling, in fractions of it, in which anything
            is guided; a condition may have a smaller one of its own.
        guided_share: the share of the sampler's steps, from the first one on, that is guided within
            that window; counted in steps, whatever their noise levels, of the whole sampling where
            it is split (``Schedule.part``).
        time_travel: how often a guided prediction is made within the window
            [travel_start, travel_end] (fractions of the sampling), re-noising in between; 1 is
            once, without re-noising.
        fresh_noise: the share of the noise, by variance, that re-noising draws anew; None: as
            FreeDoM, which steps down to the next noise level and up again: nearly all in few steps.
        momentum: the share of the previous direction that is kept, 0 for none.
        random_shift: the largest random circular shift of the decoded image in pixels, 0 for none.

    Raises:
        ValueError: a value is not among its choices or outside its range.
    """

    strength: float = 0.3
    calibrate: bool = False
    gradient_path: str = "image"
    dependence: str = "mutual"
    look_ahead: float = 0.1
    tasks: str = "rows"
    order: str = "symmetric"
    balance: str = "cagrad"
    cagrad_c: float = 0.4
    step_rule: str = "posterior"
    guide_every: int = 1
    guide_start: float = 0.0
    guide_end: float = 1.0
    guided_share: float = 1.0
    time_travel: int = 1
    travel_start: float = 0.0
    travel_end: float = 1.0
    fresh_noise: float | None = 0.5
    momentum: float = 0.0
    random_shift: int = 0
    mean_share: float = 0.0
    mean_steps: int = 1
    smoothing: float = 0.0
    smoothing_samples: int = 4

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is None and name == "fresh_noise":
                continue
            if not low <= value <= high:  # False for NaN as well
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")
        for window in ("travel", "guide"):
            start, end = (getattr(self, f"{window}_{side}") for side in ("start", "end"))
            if start > end:
                raise ValueError(f"{window}_start {start} must not exceed {window}_end {end}")
        if self.backpropagates and self.mean_share == 1.0:
            raise ValueError(
                "mean_share 1 leaves nothing for a gradient through the model: choose a "
                f"gradient_path of {', '.join(NO_BACKPROP)}, got {self.gradient_path}"
            )
        if self.step_rule == "spherical" and (self.mean_share > 0.0 or self.mean_steps > 1):
            raise ValueError(
                "step_rule spherical ends a step on a sphere, where steps on the prediction "
                "(mean_share, mean_steps) would lead off: choose another step_rule"
            )
        if self.step_rule == "spherical" and self.time_travel > 1:
            # Solvers step from a latent of their own, which time travel leaves behind.
            raise ValueError(
                "set time_travel to 1, or choose another step_rule: spherical ends a step on a "
                f"sphere that the sampler does not reach from repeats, got {self.time_travel}"
            )
        if self.strength > self.strongest:
            raise ValueError(
                "set strength to 1 or less, or choose another preset or step_rule: spherical (DSG) "
                "takes it as the share of the conditions in the direction of a step, got "
                f"{self.strength:g}"
            )

    @property
    def backpropagates(self) -> bool:
        """Whether gradients run through the denoiser."""
        return self.gradient_path not in NO_BACKPROP

    @property
    def strongest(self) -> float:
        """The largest strength that the step rule takes."""
        return 1.0 if self.step_rule == "spherical" else math.inf

    @property
    def decodings(self) -> int:
        """How many predictions a look decodes, and keeps for one gradient."""
        return self.smoothing_samples if self.smoothing > 0.0 else 1

    @property
    def without_effect(self) -> list[str]:
        """Sentences on what is set here and changes nothing, because of another setting."""
        default = type(self)()
        reasons = {
            f"balance is {self.balance}": (self.balance != "cagrad", ("cagrad_c",)),
            "dependence is off": (
                self.dependence == "off",
                ("look_ahead", "tasks", "order"),
            ),
            "strength is 0": (self.strength == 0.0, ("calibrate",)),
            "step_rule is spherical": (self.step_rule == "spherical", ("calibrate",)),
            "time_travel is 1": (self.time_travel == 1, ("travel_start", "travel_end")),
            f"gradient_path is {self.gradient_path}": (not self.backpropagates, ("mean_share",)),
            "mean_share is 0": (
                self.backpropagates and self.mean_share == 0.0,
                ("mean_steps",),
            ),
            "smoothing is 0": (self.smoothing == 0.0, ("smoothing_samples",)),
        }
        return [
            f"{name} has no effect: {reason}"
            for reason, (holds, names) in reasons.items()
            for name in names
            if holds and getattr(self, name) != getattr(default, name)
        ]

    @property
    def second_order(self) -> bool:
        """Whether gradients are differentiated again (double backward)."""
        return self.dependence == "exact"


# The paper and its baselines: steps by a share of the noise that is left, 0.3 as published; time
# travel, where it is switched on, draws nearly all noise anew.
PUBLISHED = GuidanceSettings(
    strength=0.3 / PUBLISHED_UNIT,
    step_rule="residual",
    fresh_noise=None,
    dependence="finite_difference",
    gradient_path="full",
)

# What later work adds to the independent sum, taken through the model once, as its code does. All
# gradients have one size here, so that the lengths follow the posterior spread, which is also the
# shape of UGD's schedule s(t) = sqrt(1 - alpha_bar).
INDEPENDENT = GuidanceSettings(fresh_noise=None, dependence="off", balance="sum")

# What each costs in plain pictures: `python -m lab.cost`.
PRESETS = {
    "balanced": GuidanceSettings(),
    "quality": GuidanceSettings(time_travel=3),
    "fast": GuidanceSettings(gradient_path="image_no_backprop", guide_every=4),
    # For models of one to nine steps: FMTT's endpoint guidance (arXiv 2511.22688) in the first half
    # of the steps, with FlowChef's inner iterations (arXiv 2412.00100) behind each evaluation.
    "few steps": GuidanceSettings(
        gradient_path="image_no_backprop", mean_steps=4, guided_share=0.5
    ),
    "faithful": PUBLISHED,
    "FreeDoM baseline": replace(PUBLISHED, dependence="off", balance="sum"),
    "MPGD baseline": replace(
        PUBLISHED, gradient_path="image_no_backprop", dependence="off", balance="sum"
    ),
    # Yang et al., ICML 2024, arXiv 2402.03201, as steps.spherical has it; strength is its rate.
    "DSG baseline": replace(INDEPENDENT, step_rule="spherical", strength=0.1),
    # Ye et al., NeurIPS 2024, arXiv 2409.15761, algorithm 1: four steps of mean guidance, smoothed.
    "TFG baseline": replace(INDEPENDENT, mean_share=0.5, mean_steps=4, smoothing=0.1),
    # Bansal et al., ICLR 2024, arXiv 2302.07121, equations 6 to 9, and its recurrence.
    "UGD baseline": replace(INDEPENDENT, mean_share=0.5, mean_steps=4, time_travel=2),
}


def preset(name: str, **changes: Any) -> GuidanceSettings:
    """Return the preset ``name`` with some fields changed.

    Raises:
        ValueError: there is no such preset or field.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    unknown = set(changes) - {field.name for field in fields(GuidanceSettings)}
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    return replace(PRESETS[name], **changes)
