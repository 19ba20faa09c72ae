"""Zero-shot multi-attribute guidance in pure PyTorch: samples that satisfy several energies.

An energy maps pictures to one value each, lower is better; a `Condition` gives it a weight, a
window of the sampling and a region. A `GuidedRun` corrects the predictions of any denoiser, so
that any sampler follows the conditions. It needs to know three things: the denoiser, how a
prediction is decoded to pictures, and the sampler's `Schedule`.

Here the denoiser is that of a standard normal distribution, known in closed form, and the sampler
is Euler's. The pictures are to look like a ramp from black to white and to be teal. Unguided ones
end with energies of 0.14 and 0.46.

    >>> import torch
    >>> from zmagic.guidance import ColorPalette, Condition, GuidedRun, ReferenceImage, Schedule
    >>> ramp = ReferenceImage(torch.linspace(0.0, 1.0, 16).expand(1, 3, 16, 16))
    >>> teal = ColorPalette(colors=torch.tensor([[0.16, 0.62, 0.56]]))
    >>> conditions = [Condition("ramp", ramp), Condition("teal", teal)]
    >>> schedule = Schedule.edm([10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.0])
    >>> run = GuidedRun(conditions, decode=lambda z: 0.5 + 0.25 * z, schedule=schedule)
    >>> x = 10.0 * torch.randn(1, 3, 16, 16, generator=torch.manual_seed(1))
    >>> for sigma, below in zip(schedule.sigmas[:-1], schedule.sigmas[1:]):
    ...     denoised = run.predict(x, sigma, lambda z: z / (1.0 + sigma**2))
    ...     x = denoised + below / sigma * (x - denoised)
    >>> {name: round(energy[0], 2) for name, energy in run.finish(x).final.items()}
    {'ramp': 0.09, 'teal': 0.26}

`GuidanceSettings` has every choice of the method, `preset` those that are tried and named; the
`Trace` that a run returns tells what happened in every step, and a `Watch` is told while it goes
on. Energies are in `zmagic.guidance.energies`; those of prompts and styles take an open_clip model
by `zmagic.guidance.networks.open_clip_towers`.
"""

from .conditions import Condition
from .energies import (
    BrightnessMap,
    ColorPalette,
    Depth,
    Energy,
    FaceIdentity,
    FaceOutput,
    ImageSimilarity,
    Landmarks,
    NetworkOutput,
    Normals,
    PatchSimilarity,
    Perceptual,
    Pose,
    Preference,
    RandomEnergy,
    ReferenceImage,
    RunEnergy,
    Seamless,
    Segmentation,
    Sharpness,
    Sketch,
    Style,
    Symmetry,
    Text,
)
from .engine import GuidedRun
from .pictures.preprocessing import Preprocessing
from .pictures.views import ViewOptions
from .progress import Watch
from .random_streams import RandomStreams
from .robust_views import robust_conditions
from .schedule import NoiseLevel, Schedule
from .settings import PRESETS, GuidanceSettings, preset
from .trace import Trace

__all__ = [
    "PRESETS",
    "BrightnessMap",
    "ColorPalette",
    "Condition",
    "Depth",
    "Energy",
    "FaceIdentity",
    "FaceOutput",
    "GuidanceSettings",
    "GuidedRun",
    "ImageSimilarity",
    "Landmarks",
    "NetworkOutput",
    "NoiseLevel",
    "Normals",
    "PatchSimilarity",
    "Perceptual",
    "Pose",
    "Preference",
    "Preprocessing",
    "RandomEnergy",
    "RandomStreams",
    "ReferenceImage",
    "RunEnergy",
    "Schedule",
    "Seamless",
    "Segmentation",
    "Sharpness",
    "Sketch",
    "Style",
    "Symmetry",
    "Text",
    "Trace",
    "ViewOptions",
    "Watch",
    "preset",
    "robust_conditions",
]
