"""Three doors to one engine: Z-Magic Sampler, Z-Magic Guider, Apply Z-Magic; and its settings."""

import json

import comfy.samplers
from comfy_api.latest import io

from ..guidance.plots import run_curves
from ..guidance.settings import CHOICES, PRESETS, GuidanceSettings, preset
from ..guidance.trace import Trace
from ..host.decoders import DECODERS
from ..host.hooks import HostSettings, attach
from .sockets import Conditions, Settings

__all__ = ["NODES"]

CATEGORY = "Z-Magic/sampling"
ALIASES = [
    "energy guidance",
    "loss guidance",
    "classifier guidance",
    "universal guidance",
    "FreeDoM",
    "MPGD",
    "multi-attribute",
    "CAGrad",
]
AS_PRESET = "as preset"
DEFAULTS = GuidanceSettings()


def _vae_input() -> io.Vae.Input:
    return io.Vae.Input(
        "vae",
        optional=True,
        tooltip="Shows the predicted image to the conditions. Connect the model's own VAE, or a "
        "TAESD loaded with Load VAE (much cheaper, nearly as good for guiding). Without one the "
        "settings' decoder decides.",
    )


def _conditions_input() -> Conditions.Input:
    return Conditions.Input(
        "conditions",
        tooltip="What the image must satisfy: the end of a chain of energy nodes, or Combine "
        "Conditions.",
    )


def _settings_input() -> Settings.Input:
    return Settings.Input(
        "settings",
        optional=True,
        tooltip="How to guide; without a Z-Magic Settings node the preset is 'balanced'.",
    )


def _attached(owner: str, model, conditions, settings, vae, on_finish=None):
    """``attach``, with the display name of the node in front of what can go wrong."""
    try:
        return attach(model, conditions, settings, vae, on_finish)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


class ZMagicApply(io.ComfyNode):
    """MODEL in, guided MODEL out: works with the stock KSampler and any other sampler."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ZMagicApply",
            display_name="Apply Z-Magic",
            category=CATEGORY,
            description="Guides every sampling of this model so that the image satisfies all "
            "conditions at once. Use it in front of KSampler or any other sampler.",
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The diffusion model; LoRAs and other patches before or after are "
                    "fine. A model that is guided already gets the new conditions added.",
                ),
                _conditions_input(),
                _settings_input(),
                _vae_input(),
            ],
            outputs=[io.Model.Output(tooltip="The guided model.")],
        )

    @classmethod
    def execute(cls, model, conditions, settings=None, vae=None) -> io.NodeOutput:
        return io.NodeOutput(_attached("Apply Z-Magic", model, conditions, settings, vae))


class ZMagicGuider(io.ComfyNode):
    """A GUIDER for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ZMagicGuider",
            display_name="Z-Magic Guider",
            category=CATEGORY,
            description="A CFG guider whose predictions satisfy all conditions at once, for "
            "SamplerCustomAdvanced.",
            search_aliases=[*ALIASES, "CFGGuider", "BasicGuider"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Conditioning.Input("positive", tooltip="What the image shows."),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to avoid. Leave it open for models without a negative prompt "
                    "(cfg is then ignored).",
                ),
                _conditions_input(),
                _settings_input(),
                _vae_input(),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=False,
                    tooltip="Classifier-free guidance scale; 1 switches it off.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="Connect to SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model, positive, conditions, cfg, negative=None, settings=None, vae=None
    ) -> io.NodeOutput:
        model = _attached("Z-Magic Guider", model, conditions, settings, vae)
        guider = comfy.samplers.CFGGuider(model)
        if negative is None:
            guider.inner_set_conds({"positive": positive})
            guider.set_cfg(1.0)
        else:
            guider.set_conds(positive, negative)
            guider.set_cfg(cfg)
        return io.NodeOutput(guider)


class ZMagicSampler(io.ComfyNode):
    """KSampler with conditions, and a report of what they did."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ZMagicSampler",
            display_name="Z-Magic Sampler",
            category=CATEGORY,
            description="KSampler that satisfies several conditions at once and reports how: "
            "energies, conflicts between the conditions, cost.",
            search_aliases=[*ALIASES, "KSampler"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Conditioning.Input("positive", tooltip="What the image shows."),
                io.Conditioning.Input("negative", tooltip="What to avoid."),
                io.Latent.Input(
                    "latent_image", tooltip="Empty latent, or an image to start from (denoise < 1)."
                ),
                _conditions_input(),
                _settings_input(),
                _vae_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed gives the same image.",
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=10000, tooltip="Steps; 20 to 40 is good."
                ),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=False,
                    tooltip="Classifier-free guidance scale; 1 switches it off.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    tooltip="Any sampler of the host. One evaluation per step (euler, dpmpp_2m) "
                    "is cheapest under guidance.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    tooltip="Spacing of the noise levels.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="1 starts from pure noise; less keeps more of the latent image.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Decode it with VAE Decode."),
                io.Image.Output(
                    display_name="report",
                    tooltip="Energies over the steps, cosines between the conditions' gradients, "
                    "size of the correction.",
                ),
                io.String.Output(
                    display_name="report_json", tooltip="The same and more as JSON, for scripts."
                ),
            ],
        )

    @classmethod
    def execute(
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
        settings=None,
        vae=None,
    ) -> io.NodeOutput:
        from nodes import common_ksampler

        traces: list[Trace] = []
        owner = "Z-Magic Sampler"
        guided = _attached(owner, model, conditions, settings, vae, traces.append)
        (latent,) = common_ksampler(
            guided,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
        )
        # denoise 0 samples nothing: the host returns the latent without a run.
        report = traces[-1].to_json() if traces else Trace({}).to_json()
        return io.NodeOutput(latent, run_curves({"": json.loads(report)}), report)


class ZMagicSettings(io.ComfyNode):
    """Every choice of the method behind one preset."""

    @classmethod
    def define_schema(cls):
        def choice(name: str, tooltip: str):
            return io.Combo.Input(
                name,
                options=[AS_PRESET, *CHOICES[name]],
                default=AS_PRESET,
                advanced=True,
                tooltip=tooltip,
            )

        def number(name: str, low: float, high: float, step: float, tooltip: str, advanced=True):
            return io.Float.Input(
                name,
                default=getattr(DEFAULTS, name),
                min=low,
                max=high,
                step=step,
                round=False,
                advanced=advanced,
                tooltip=tooltip,
            )

        def count(name: str, low: int, high: int, tooltip: str):
            return io.Int.Input(
                name,
                default=getattr(DEFAULTS, name),
                min=low,
                max=high,
                advanced=True,
                tooltip=tooltip,
            )

        return io.Schema(
            node_id="ZMagicSettings",
            display_name="Z-Magic Settings",
            category=CATEGORY,
            description="How Z-Magic guides: a preset for most, every choice of the method for "
            "those who compare.",
            search_aliases=[*ALIASES, "presets"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="balanced",
                    tooltip="balanced: dependent conditions at the price of one backward per "
                    "step. fast: no backward through the model. faithful: the paper's "
                    "mathematics through the model, several times slower. The baselines treat "
                    "conditions as independent, for comparison.",
                ),
                number(
                    "strength",
                    0.0,
                    10.0,
                    0.01,
                    "How far a step follows the conditions, as a share of the noise that is left. "
                    "0 is plain sampling with a report; 0.1 to 0.3 is good; too much looks painted "
                    "over.",
                    advanced=False,
                ),
                choice(
                    "gradient_path",
                    "Where the dependence between conditions is evaluated: full (through the "
                    "model), prediction (predicted latent), image (decoded image); the same two "
                    "without a backward through the model: no_backprop, image_no_backprop.",
                ),
                choice(
                    "dependence",
                    "How the second condition sees what the first one did: finite_difference is "
                    "accurate and cheap, exact is the reference (slow, much memory), first_order "
                    "drops the curvature, off treats conditions as independent.",
                ),
                number(
                    "look_ahead",
                    0.0,
                    5.0,
                    0.01,
                    "Length of the look-ahead in units of the noise level (kappa). 0 removes the "
                    "dependence; 0.03 to 0.3 is good.",
                ),
                choice("tasks", "rows: one task per condition. pairs: one task per ordered pair."),
                choice(
                    "order",
                    "symmetric: every order of two conditions counts. as_connected: only along "
                    "the chain of nodes. auto: along the most helpful order, found every step.",
                ),
                choice(
                    "balance",
                    "How tasks are combined: cagrad betrays none, sum adds them up, pcgrad "
                    "removes conflicts pairwise, mgda takes the shortest common direction.",
                ),
                number(
                    "cagrad_c",
                    0.0,
                    10.0,
                    0.05,
                    "How far CAGrad may leave the mean to help the worst task. 0 is the mean; "
                    "0.4 is good; from 1 on no condition gets worse.",
                ),
                choice(
                    "step_rule",
                    "residual: a share of the remaining noise. classifier: the score itself. "
                    "freedom: a share of the CFG difference. polyak: by the energies' values.",
                ),
                count("guide_every", 1, 100, "Guide every k-th step; 1 guides all, 2 halves cost."),
                count(
                    "time_travel",
                    1,
                    20,
                    "Predictions per step inside the travel window, with fresh noise in between; "
                    "1 is off, 2 to 5 follow the conditions closer at a multiple of the cost.",
                ),
                number("travel_start", 0.0, 1.0, 0.01, "Start of the travel window, 0 = first."),
                number("travel_end", 0.0, 1.0, 0.01, "End of the travel window, 1 = last step."),
                number("momentum", 0.0, 0.99, 0.05, "Share of the last direction kept; 0 is off."),
                count(
                    "random_shift",
                    0,
                    64,
                    "Random shift of the decoded image in pixels before it is judged, against "
                    "adversarial patterns; 0 is off, 4 to 8 is good for text and identity.",
                ),
                io.Combo.Input(
                    "decoder",
                    options=list(DECODERS),
                    default="auto",
                    advanced=True,
                    tooltip="What shows the image to the conditions. auto: the connected VAE, "
                    "else TAESD if installed in models/vae_approx, else linear RGB (blurred, "
                    "nearly free).",
                ),
            ],
            outputs=[
                Settings.Output(display_name="settings", tooltip="Connect to a Z-Magic sampler.")
            ],
        )

    @classmethod
    def execute(cls, preset, decoder="auto", **values) -> io.NodeOutput:
        return io.NodeOutput(HostSettings(_settings_from(preset, values), decoder))


def _settings_from(name: str, values: dict) -> GuidanceSettings:
    """The preset with every widget that is not left ``as preset``."""
    changes = {key: value for key, value in values.items() if value != AS_PRESET}
    try:
        return preset(name, **changes)
    except ValueError as error:
        raise ValueError(f"Z-Magic Settings: {error}") from error


NODES = [ZMagicSampler, ZMagicApply, ZMagicGuider, ZMagicSettings]
