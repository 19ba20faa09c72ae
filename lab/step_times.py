"""How long a step and a picture take: every kind of sampler step is timed, and weighed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from comfy.model_patcher import ModelPatcher

from zmagic.guidance.conditions import Condition
from zmagic.guidance.evaluation import DENOISER
from zmagic.guidance.settings import GuidanceSettings
from zmagic.guidance.trace import Trace
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.run import schedule_of

from .evaluations import DECODER, STEPS, Run, evaluations
from .sampling import Subject, sampled, sigmas_of

__all__ = ["Takes", "Timer", "guided_times", "plain_times"]

PLAIN_STEP: Counter[Run] = Counter({(DENOISER, "forward"): 1})


@dataclass(frozen=True)
class Timer:
    """How steps are timed.

    Args:
        warm_up: whether a step comes before those that are timed.
        repeats: how often a step is made; the fastest one counts.
        clock: returns the seconds from some beginning.
        steps: the sampler steps of a picture.
    """

    warm_up: bool
    repeats: int
    clock: Callable[[], float]
    steps: int = STEPS


@dataclass(frozen=True)
class Takes:
    """Seconds that something takes, and what it runs.

    Args:
        step: seconds of the dearest sampler step.
        picture: seconds of all steps, and of what a run does once.
        denoiser_runs, decoder_runs: forwards and backwards in the dearest step.
        warnings: what the runs said, such as that they went on without a gradient.
    """

    step: float
    picture: float
    denoiser_runs: tuple[int, int] = (1, 0)
    decoder_runs: tuple[int, int] = (0, 0)
    warnings: tuple[str, ...] = ()


def plain_times(subject: Subject, timer: Timer) -> Takes:
    """Time plain sampling."""
    sigma = float(sigmas_of(subject.model, timer.steps)[0])
    seconds, _ = _timed(subject, subject.model, sigma, timer)
    return Takes(seconds, timer.steps * seconds)


def guided_times(
    subject: Subject,
    decoder: str,
    settings: GuidanceSettings,
    conditions: Sequence[Condition],
    plain: Takes,
    timer: Timer,
) -> Takes:
    """Time guided sampling.

    A picture has few kinds of steps: guided or not, once or by time travel. One step of each kind
    is made, at the noise level of the first one, and counts as often as the kind occurs.

    Args:
        subject: what is sampled.
        decoder: one of the host's decoders.
        settings, conditions: how and by what it is guided.
        plain: what plain sampling takes.
        timer: how to time.
    """
    sigmas = sigmas_of(subject.model, timer.steps)
    schedule = schedule_of(subject.model.get_model_object("model_sampling"), sigmas)
    found = evaluations(settings, len(conditions), timer.steps, schedule)
    checks = found.trace.extra_forwards.get(f"{DENOISER} check", 0)
    kind, vae = subject.decoder(decoder)
    # A run whose only step is guided guides it, whatever its number in the picture is.
    every_step = HostSettings(replace(settings, guide_every=1, guided_share=1.0), kind)
    traces: list[Trace] = []
    model = attach(subject.model, tuple(conditions), every_step, vae, traces.append)

    takes, after = {_kind(PLAIN_STEP): plain.step}, []
    for sigma, step in zip(schedule.sigmas, found.steps, strict=False):
        if _kind(step) in takes:
            continue
        # The check of the slope is made once a run, in its first step.
        seconds, end = _timed(subject, model, sigma, timer, once=checks * plain.step)
        takes[_kind(step)] = seconds
        after.append(end)
    picture = sum(takes[_kind(step)] for step in found.steps) + checks * plain.step
    return Takes(
        takes[_kind(found.step)],
        picture + min(after, default=0.0),
        _both_ways(DENOISER, found.step),
        _both_ways(DECODER, found.step),
        tuple(dict.fromkeys(warning for trace in traces for warning in trace.warnings)),
    )


def _timed(
    subject: Subject, model: ModelPatcher, sigma: float, timer: Timer, once: float = 0.0
) -> tuple[float, float]:
    """Seconds of a step at ``sigma``, and of what comes behind the last one.

    ``once`` are seconds of the first step that do not count.
    """
    sigmas = torch.tensor([sigma] * (timer.warm_up + timer.repeats) + [0.0])
    made = sampled(subject, model, sigmas, timer.clock)
    first, *rest = made.seconds
    return min([first - once, *rest][timer.warm_up :]), made.after


def _kind(step: Counter[Run]) -> frozenset:
    """What tells steps apart: how often each part is run in each way."""
    return frozenset(step.items())


def _both_ways(part: str, step: Counter[Run]) -> tuple[int, int]:
    return step[part, "forward"], step[part, "backward"]
