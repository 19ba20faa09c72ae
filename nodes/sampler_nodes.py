"""The three nodes that guide a sampling: Z-Magic Sampler, Z-Magic Guider, Apply Z-Magic."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.samplers
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..guidance.candidates import early_steps, seeds_of
from ..guidance.trace import Trace
from ..guidance.wording import one_line
from ..host.hooks import attach, unguided
from .bases import Node
from .candidate_runs import best_of
from .notices import notify, say
from .run_reports import figure_of, json_of, report_outputs, shown, tell
from .settings_node import ALIASES, CATEGORY
from .sockets import Conditions, Settings
from .titles import title

__all__ = [
    "NODES",
    "attach_and_show",
    "cfg_input",
    "conditions_input",
    "settings_input",
    "vae_input",
]

log = logging.getLogger(__name__)


def vae_input() -> io.Vae.Input:
    """The input for what decodes predictions."""
    return io.Vae.Input(
        "vae",
        optional=True,
        tooltip=(
            "Turns each prediction of the model into the picture that the "
            "conditions see: the model's own VAE, or a TAESD loaded with Load VAE "
            "(much cheaper, nearly as good). A TAESD that is installed for this "
            "model is taken in its place, as 'decoder' of Z-Magic Settings says. "
            "Not connected: TAESD, else linear RGB."
        ),
    )


def conditions_input() -> Conditions.Input:
    """The input for conditions."""
    return Conditions.Input(
        "conditions",
        tooltip="What the image must satisfy: the end of a chain of energy nodes, or Combine "
        "Conditions.",
    )


def settings_input(
    tooltip: str = "How to guide: Z-Magic Settings. Not connected: the preset 'balanced'.",
) -> Settings.Input:
    """The input for settings."""
    return Settings.Input("settings", optional=True, tooltip=tooltip)


def cfg_input(default: float = 8.0) -> io.Float.Input:
    """The input for classifier-free guidance."""
    return io.Float.Input(
        "cfg",
        default=default,
        min=0.0,
        max=100.0,
        step=0.1,
        round=False,
        tooltip="Classifier-free guidance scale; 1 switches it off.",
    )


def attach_and_show(node: type[io.ComfyNode], model, conditions, settings, vae, traces=None):
    """Attach guidance to a model, whose runs are shown on the node while they go on and after it.

    Args:
        node: the class that ComfyUI executes.
        model, conditions, settings, vae: what is connected to it; see ``attach``.
        traces: a list to which the record of each run is added; None: nobody wants them.
    """

    def on_finish(trace: Trace) -> None:
        if traces is not None:
            traces.append(trace)
        tell(node, trace)  # in the log it is already

    return attach(model, conditions, settings, vae, on_finish, lambda line: say(node, line))


class ZMagicApply(Node):
    """Build guidance into a MODEL, for the stock KSampler and any other sampler."""

    @classmethod
    def schema(cls) -> io.Schema:
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
                conditions_input(),
                settings_input(),
                vae_input(),
            ],
            outputs=[io.Model.Output(tooltip="The guided model.")],
        )

    @classmethod
    def run(cls, model, conditions, settings=None, vae=None) -> io.NodeOutput:
        return io.NodeOutput(attach_and_show(cls, model, conditions, settings, vae))


class ZMagicGuider(Node):
    """Make a GUIDER for SamplerCustomAdvanced."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicGuider",
            display_name="Z-Magic Guider",
            category=CATEGORY,
            description=(
                "Classifier-free guidance whose predictions satisfy all conditions at "
                "once, for SamplerCustomAdvanced."
            ),
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
                conditions_input(),
                settings_input(),
                vae_input(),
                cfg_input(),
            ],
            outputs=[io.Guider.Output(tooltip="Connect to SamplerCustomAdvanced.")],
        )

    @classmethod
    def run(
        cls, model, positive, conditions, cfg, negative=None, settings=None, vae=None
    ) -> io.NodeOutput:
        model = attach_and_show(cls, model, conditions, settings, vae)
        guider = comfy.samplers.CFGGuider(model)
        if negative is None:
            guider.inner_set_conds({"positive": positive})
            guider.set_cfg(1.0)
        else:
            guider.set_conds(positive, negative)
            guider.set_cfg(cfg)
        return io.NodeOutput(guider)


class ZMagicSampler(Node):
    """Sample as KSampler does, with conditions and a report."""

    @classmethod
    def schema(cls) -> io.Schema:
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
                conditions_input(),
                settings_input(),
                vae_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed gives the same image.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="Number of sampling steps; 20 to 40 is good.",
                ),
                cfg_input(),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    tooltip="Any sampler of ComfyUI. One evaluation per step (euler, dpmpp_2m) "
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
                io.Boolean.Input(
                    "compare",
                    default=False,
                    optional=True,
                    tooltip="Also makes the picture of the same seed without guidance, at the "
                    "price of one plain sampling: it comes out at 'unguided', and the report "
                    "holds the guided one against it.",
                ),
                io.Int.Input(
                    "candidates",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Seeds that are guided for the first quarter of the steps; the one that"
                        " satisfies the conditions best is sampled from its beginning. Each "
                        "costs a quarter of a guided picture, and the report says which seed it"
                        " was. 1 is this seed alone."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Decode it with VAE Decode."),
                *report_outputs(),
                io.Latent.Output(
                    display_name="unguided",
                    tooltip="With compare: the picture of the same seed without guidance. Without "
                    "it nothing comes out here, and what hangs on it does not run.",
                ),
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
        settings=None,
        vae=None,
        compare=False,
        candidates=1,
    ) -> io.NodeOutput:
        from nodes import common_ksampler

        def sampled(of, seed: int = seed, last_step: int | None = None) -> dict:
            """The latent of a seed; clean after some of the steps, if not all are to be made."""
            chosen = (seed, steps, cfg, sampler_name, scheduler, positive, negative)
            part = {} if last_step is None else {"last_step": last_step, "force_full_denoise": True}
            return common_ksampler(of, *chosen, latent_image, denoise=denoise, **part)[0]

        best = None
        if candidates > 1:
            attached = partial(attach, model, conditions, settings, vae, steps=steps)
            best = best_of(cls, attached, sampled, seeds_of(seed, candidates), early_steps(steps))
            sampled = partial(sampled, seed=best.seed if best else seed)
        traces: list[Trace] = []
        guided = attach_and_show(cls, model, conditions, settings, vae, traces)
        latent = sampled(guided)
        if not traces:  # the host returns the latent without a run
            traces.append(Trace({}, warnings=["Nothing was sampled and guided: denoise is 0."]))
            notify(cls, traces[0].warnings)
            compare = False
        trace = traces[-1]
        if best is not None:
            best.put_into(trace)
            tell(cls, trace)
        beside = _unguided(cls, guided, sampled, trace) if compare else ExecutionBlocker(None)
        figure = figure_of(trace)
        return io.NodeOutput(latent, figure, json_of(trace), beside, ui=shown(trace, figure))


def _unguided(
    node: type[io.ComfyNode], guided, sampled: Callable[[Any], dict], trace: Trace
) -> dict | ExecutionBlocker:
    """The latent of the same sampling without guidance; its energies go to the trace.

    The guided picture is done: if this one fails, a warning says so.
    """
    say(node, "Sampling without guidance, to compare.")
    found: list[Trace] = []
    try:
        latent = sampled(unguided(guided, found.append))
        trace.unguided = found[-1].final
    except Exception as error:
        warning = f"the unguided picture could not be made: {one_line(error)}"
        trace.warn_once(warning)
        log.warning("%s: %s", title(node), warning, exc_info=True)
        latent = ExecutionBlocker(None)
    except BaseException:  # an interruption: the text above would stay
        say(node, "Stopped while sampling without guidance.")
        raise
    tell(node, trace)
    return latent


NODES = [ZMagicSampler, ZMagicApply, ZMagicGuider]
