"""The node that searches the noise of a model of few steps."""

from typing import Any

import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ..guidance.noise_search import NoiseSearch
from ..guidance.trace import Trace
from ..host.hooks import with_noise_search
from .bases import Node
from .run_reports import figure_of, json_of, report_outputs, shown
from .sampler_nodes import (
    attach_and_show,
    cfg_input,
    conditions_input,
    settings_input,
    vae_input,
)
from .settings_node import ALIASES, CATEGORY

__all__ = ["NODES", "SearchedNoise"]

DEFAULTS = NoiseSearch()
MOST_STEPS = 8  # the gradient keeps what all of them save
MOST_EVALUATIONS = 1000


class SearchedNoise:
    """A NOISE of ComfyUI: that of a search, for latents of its size.

    Args:
        noise: ``[B, ...]``, on the CPU.
        seed: the one that the search began with.
    """

    def __init__(self, noise: Tensor, seed: int):
        self.seed = seed
        self._noise = noise

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """A copy of the noise.

        Raises:
            ValueError: the latent has another shape.
        """
        wanted = list(input_latent["samples"].shape)
        if wanted != list(self._noise.shape):
            raise ValueError(
                "connect the latent that Optimize Noise had: its noise is for "
                f"{list(self._noise.shape)}, got a latent of {wanted}"
            )
        return self._noise.clone()


class ZMagicOptimizeNoise(Node):
    """Search the noise whose picture satisfies the conditions."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicOptimizeNoise",
            display_name="Optimize Noise",
            category=CATEGORY,
            description=(
                "For models of one to eight steps (Turbo, Lightning, schnell): makes the picture "
                "again and again, each time from a noise that satisfies the conditions better, "
                "and keeps the best. The model's own pictures, nothing painted over."
            ),
            search_aliases=[
                *ALIASES,
                "ReNO",
                "noise optimization",
                "initial noise",
                "seed search",
                "best of N",
                "reward",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A model of few steps. The gradient goes through all of them: "
                    "everything that patches it has to be differentiable.",
                ),
                io.Conditioning.Input("positive", tooltip="What the image shows."),
                io.Conditioning.Input("negative", tooltip="What to avoid."),
                io.Latent.Input(
                    "latent_image", tooltip="Empty latent, or an image to start from (denoise < 1)."
                ),
                conditions_input(),
                settings_input(
                    "How conditions are balanced: dependence, balance and gradient_path of Z-Magic "
                    "Settings and Method, decoder and memory. Strength and windows have no effect "
                    "here. Not connected: the preset 'balanced'."
                ),
                vae_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The noise that the search begins with; the first picture is its own.",
                ),
                io.Int.Input(
                    "steps",
                    default=1,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="Sampling steps of each picture: 1 to 4. The gradient keeps what all "
                    "of them save.",
                ),
                cfg_input(1.0),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="euler or lcm. The gradient comes through most others, too; where it "
                    "does not, the node says so.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="simple",
                    tooltip="Spacing of the noise levels.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="1 starts from pure noise; less keeps more of the latent image, and "
                    "leaves the noise less to say.",
                ),
                io.Int.Input(
                    "evaluations",
                    default=DEFAULTS.evaluations,
                    min=1,
                    max=MOST_EVALUATIONS,
                    tooltip="The budget: noises whose picture is made and looked at. Each but the "
                    "last takes a forward and a backward of every step, two to three plain "
                    "pictures; one more plain picture is the result. 1 looks at the seed alone.",
                ),
                io.Float.Input(
                    "rate",
                    default=DEFAULTS.rate,
                    min=0.001,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="How far one evaluation moves the noise, in parts of its own size: "
                    "0.1 for tens of evaluations, 0.02 for hundreds.",
                ),
                io.Boolean.Input(
                    "white",
                    default=DEFAULTS.white,
                    optional=True,
                    advanced=True,
                    tooltip="Keeps the noise white: no frequency of it may grow, so that the model "
                    "goes on making pictures, and no patterns. Off: the noise keeps its size "
                    "alone.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Decode it with VAE Decode."),
                io.Noise.Output(
                    display_name="noise",
                    tooltip="The noise of that picture, for SamplerCustomAdvanced and a latent of "
                    "the same size.",
                ),
                *report_outputs(),
            ],
        )

    @classmethod
    def run(
        cls,
        model,
        positive,
        negative,
        latent_image,
        conditions,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        evaluations,
        rate,
        settings=None,
        vae=None,
        white=True,
    ) -> io.NodeOutput:
        from nodes import common_ksampler

        traces: list[Trace] = []
        noises: list[Tensor] = []

        guided = attach_and_show(cls, model, conditions, settings, vae, traces)
        search = NoiseSearch(evaluations, rate, white)
        searching = with_noise_search(guided, search, noises.append)
        chosen = (seed, steps, cfg, sampler_name, scheduler, positive, negative)
        latent = common_ksampler(searching, *chosen, latent_image, denoise=denoise)[0]
        if not noises:
            raise ValueError("set 'denoise' above 0: at 0 nothing is sampled, and no noise is used")
        trace = traces[-1]
        figure = figure_of(trace)
        noise = SearchedNoise(noises[-1], seed)
        return io.NodeOutput(latent, noise, figure, json_of(trace), ui=shown(trace, figure))


NODES = [ZMagicOptimizeNoise]
