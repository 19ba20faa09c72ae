"""Time travel: a guided prediction is made again, at the noise level that it came from."""

from dataclasses import dataclass

from torch import Tensor

from .conditions import lies_within
from .random_streams import RandomStreams
from .schedule import NoiseLevel, Schedule
from .settings import GuidanceSettings
from .steps import renoise

__all__ = ["TimeTravel"]


@dataclass(frozen=True)
class TimeTravel:
    """How often a prediction is made, and the noisy latents of its repeats.

    Args:
        settings: the settings of the run.
        schedule: the noise levels of the sampler.
        streams: the random draws of re-noising.
    """

    settings: GuidanceSettings
    schedule: Schedule
    streams: RandomStreams

    def repeats(self, sigma: float) -> int:
        """How often the prediction at ``sigma`` is made, >= 1."""
        settings = self.settings
        window = (settings.travel_start, settings.travel_end)
        return settings.time_travel if lies_within(sigma, *window, self.schedule.sigma_at) else 1

    def again(
        self,
        x: Tensor,
        prediction: Tensor,
        corrected: Tensor,
        sigma: float,
        level: NoiseLevel,
        repeat: int,
    ) -> Tensor:
        """A noisy latent of the corrected prediction, at the noise level of x."""
        fresh = self.settings.fresh_noise
        if fresh is None:  # a step to the schedule's next level, and up again
            kept = self.schedule.noise_level(self.schedule.next_sigma(sigma)).s / level.s
            noise = level.noise(x, corrected)
        else:  # what the model takes for noise: the correction is no part of it, and stays whole
            kept = (1.0 - fresh) ** 0.5
            noise = level.noise(x, prediction)
        fresh_noise = self.streams.normal(x, sigma, repeat)
        return renoise(corrected, noise, level, kept, fresh_noise)
