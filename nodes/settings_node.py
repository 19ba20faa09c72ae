"""The node of the settings: a preset, how strongly, and what that may take."""

from typing import Any

from comfy_api.latest import io

from ..guidance.settings import PRESETS, GuidanceSettings, preset
from ..host.decoders import DECODERS
from ..host.hooks import HostSettings
from ..host.memory import MEMORY
from .bases import Node
from .notices import show
from .sockets import Method, Settings

__all__ = ["ALIASES", "CATEGORY", "NODES"]

CATEGORY = "Z-Magic/sampling"
ALIASES = [
    "guidance",
    "energy guidance",
    "loss guidance",
    "classifier guidance",
    "universal guidance",
    "FreeDoM",
    "MPGD",
    "multi-attribute",
    "CAGrad",
]
DEFAULTS = GuidanceSettings()


class ZMagicSettings(Node):
    """Choose a preset, and how strongly it guides."""

    @classmethod
    def schema(cls) -> io.Schema:
        def share(name: str, tooltip: str):
            return io.Float.Input(
                name,
                optional=True,
                default=getattr(DEFAULTS, name),
                min=0.0,
                max=1.0,
                step=0.01,
                round=False,
                advanced=True,
                tooltip=tooltip,
            )

        return io.Schema(
            node_id="ZMagicSettings",
            display_name="Z-Magic Settings",
            category=CATEGORY,
            description=(
                "Says how to guide: a preset and a strength are enough for most pictures. What "
                "only those change who compare methods is in Z-Magic Method."
            ),
            search_aliases=[*ALIASES, "presets"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="balanced",
                    tooltip=(
                        "balanced: one backward through the model a step, whatever the number "
                        "of conditions; quality: every step guided three times; fast: no "
                        "backward, every fourth step only; few steps: for Turbo, Lightning and "
                        "schnell; faithful: the paper's chain. The baselines treat conditions as "
                        "independent, for comparison."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=DEFAULTS.strength,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=False,
                    tooltip=(
                        "How far a step follows the conditions, as a share of the posterior "
                        "spread: how much of the picture is still open. 0 is plain sampling "
                        "with a report; 0.2 to 0.5 is good for 'balanced', less for 'quality', "
                        "more for 'fast'. Too much looks painted over."
                    ),
                ),
                io.Boolean.Input(
                    "calibrate",
                    default=DEFAULTS.calibrate,
                    optional=True,
                    tooltip=(
                        "Finds the strength for this model and these conditions at the first look "
                        "that guides: the largest of 0.1 to 1.6 times 'strength' up to which it "
                        "lowers every condition there. One for the whole run and batch; the "
                        "report says which. Costs five decodings, none of the model."
                    ),
                ),
                share(
                    "guide_start",
                    "Start of the guidance as a fraction of the sampling; 0 is its first step.",
                ),
                share(
                    "guide_end",
                    "End of the guidance as a fraction of the sampling; 1 is its last step. Half "
                    "of the steps cost half of the guidance.",
                ),
                io.Combo.Input(
                    "decoder",
                    options=list(DECODERS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Turns predictions into the pictures that the conditions see. auto: "
                        "TAESD if installed in models/vae_approx, else the connected VAE, large "
                        "pictures at half size (vae_half: a quarter of the work), else linear RGB "
                        "(blurred, nearly free)."
                    ),
                ),
                io.Combo.Input(
                    "memory",
                    options=list(MEMORY),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Memory of the gradients. small: blocks of the models keep only their "
                        "inputs and run again in each backward; a fifth to a tenth of the "
                        "model's share, half of the VAE's. fast: they keep all; auto: fast if "
                        "that fits."
                    ),
                ),
                Method.Input(
                    "method",
                    optional=True,
                    tooltip=(
                        "Z-Magic Method, which replaces single choices of the preset; this node "
                        "says which. Not connected: the preset as it is."
                    ),
                ),
            ],
            outputs=[
                Settings.Output(display_name="settings", tooltip="Connect to a Z-Magic sampler.")
            ],
        )

    @classmethod
    def run(
        cls,
        preset,
        decoder="auto",
        memory="auto",
        method: dict[str, Any] | None = None,
        **values,
    ) -> io.NodeOutput:
        guidance = _guidance(preset, values | (method or {}))
        notes = (_replaced(preset, method),) if method else ()
        show(cls, notes)
        return io.NodeOutput(HostSettings(guidance, decoder, memory, notes))


def _guidance(name: str, changes: dict[str, Any]) -> GuidanceSettings:
    return preset(name, **changes)


def _replaced(name: str, method: dict[str, Any]) -> str:
    """What became of the preset's own choices."""
    before = {key: getattr(PRESETS[name], key) for key in method}
    changes = [
        f"{key} {_word(value)} in place of {_word(before[key])}"
        for key, value in method.items()
        if value != before[key]
    ]
    if not changes:
        return f"Z-Magic Method says what '{name}' is: nothing is replaced."
    return f"Z-Magic Method replaces of '{name}': {', '.join(changes)}."


def _word(value: str | float | None) -> str:
    if value is None:
        return "as FreeDoM"  # of fresh_noise, the only one that may be None
    return value if isinstance(value, str) else f"{value:g}"


NODES = [ZMagicSettings]
