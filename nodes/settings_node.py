"""The node of the settings: every choice of the method behind one preset."""

from comfy_api.latest import io

from ..guidance.settings import CHOICES, PRESETS, GuidanceSettings, preset
from ..host.decoders import DECODERS
from ..host.hooks import HostSettings
from ..host.memory import MEMORY
from .bases import Node
from .sockets import Settings

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
AS_PRESET = "as preset"
# Numbers have no word for it: values below their ranges.
NUMBERS_AS_PRESET = {
    "time_travel": 0,
    "guide_every": 0,
    "fresh_noise": -1.0,
    "guide_start": -1.0,
    "guide_end": -1.0,
}
DEFAULTS = GuidanceSettings()


class ZMagicSettings(Node):
    """Choose a preset, and change any of its choices."""

    @classmethod
    def schema(cls) -> io.Schema:
        def choice(name: str, tooltip: str):
            return io.Combo.Input(
                name,
                options=[AS_PRESET, *CHOICES[name]],
                default=AS_PRESET,
                advanced=True,
                tooltip=tooltip,
            )

        def number(
            name: str,
            low: float,
            high: float,
            step: float,
            tooltip: str,
            advanced=True,
            optional=False,
        ):
            return io.Float.Input(
                name,
                optional=optional,
                default=NUMBERS_AS_PRESET.get(name, getattr(DEFAULTS, name)),
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
                default=NUMBERS_AS_PRESET.get(name, getattr(DEFAULTS, name)),
                min=low,
                max=high,
                advanced=True,
                tooltip=tooltip,
            )

        return io.Schema(
            node_id="ZMagicSettings",
            display_name="Z-Magic Settings",
            category=CATEGORY,
            description=(
                "Says how to guide: by a preset, which is enough for most pictures, and "
                "by every choice of the method for those who compare."
            ),
            search_aliases=[*ALIASES, "presets"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="balanced",
                    tooltip=(
                        "balanced: dependent conditions, one backward through the model a step, "
                        "whatever their number. quality: every step guided three times. fast: no "
                        "backward through the model, every fourth step only. "
                        "faithful: the paper's chain through the model. The baselines treat "
                        "conditions as independent, for comparison."
                    ),
                ),
                number(
                    "strength",
                    0.0,
                    10.0,
                    0.01,
                    "How far a step follows the conditions, as a share of the posterior spread: "
                    "how much of the picture is still open. The same unit for all presets: twice "
                    "the number that FreeDoM publishes. 0 is plain sampling with a report; 0.2 to "
                    "0.5 is good for 'balanced', less for 'quality', which guides each step "
                    "three times; too much looks painted over.",
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
                    "How the second condition sees what the first one did: mutual is the cheapest "
                    "one with the curvature, finite_difference evaluates it for each task, exact "
                    "differentiates twice (slow, much memory), first_order drops the curvature, "
                    "off treats conditions as independent.",
                ),
                number(
                    "look_ahead",
                    0.0,
                    5.0,
                    0.01,
                    "How far the first condition moves the picture before the second one looks, "
                    "in units of the noise level (gradient_path full) or of the posterior spread "
                    "(the other paths). 0 removes the dependence; 0.03 to 0.3 is good.",
                ),
                choice("tasks", "rows: one task per condition. pairs: one task per ordered pair."),
                choice(
                    "order",
                    "symmetric: every order of two conditions counts. as_connected: only along "
                    "the chain of nodes. auto: along the most helpful order, found every step.",
                ),
                choice(
                    "balance",
                    "How tasks are combined: cagrad favors the one that is served worst, sum adds "
                    "them up, pcgrad removes conflicts pairwise, mgda takes the shortest common "
                    "direction.",
                ),
                number(
                    "cagrad_c",
                    0.0,
                    10.0,
                    0.05,
                    "How far CAGrad may leave the mean of the tasks to help the worst one, as a "
                    "share of the mean's length. 0 is the mean; 0.4 is good, but can go against a "
                    "task; from 1 on a small step goes against none.",
                ),
                choice(
                    "step_rule",
                    "The length of a correction. posterior: a share of the posterior spread. "
                    "residual: a share of the remaining noise, far more in the first steps and "
                    "less in the last; in all about the same. classifier: the score itself. "
                    "freedom: a share of the CFG difference. polyak: by the energies' values.",
                ),
                count(
                    "guide_every",
                    0,
                    100,
                    "Guide every k-th step only: 1 guides all, 2 halves the cost, 0 is as the "
                    "preset.",
                ),
                number(
                    "guide_start",
                    -1.0,
                    1.0,
                    0.01,
                    "Start of the guidance as a fraction of the sampling; 0 is its first step, "
                    "-1 is as the preset.",
                    optional=True,
                ),
                number(
                    "guide_end",
                    -1.0,
                    1.0,
                    0.01,
                    "End of the guidance as a fraction of the sampling; 1 is its last step, -1 is "
                    "as the preset. Half of the steps cost half of the guidance.",
                    optional=True,
                ),
                count(
                    "time_travel",
                    0,
                    20,
                    "Predictions per step inside the travel window, with fresh noise in between; "
                    "0 is as the preset, 1 is off, 2 to 5 follow the conditions closer at a "
                    "multiple of the cost.",
                ),
                number(
                    "travel_start",
                    0.0,
                    1.0,
                    0.01,
                    "Start of the travel window as a fraction "
                    "of the sampling; 0 is its first step.",
                ),
                number(
                    "travel_end",
                    0.0,
                    1.0,
                    0.01,
                    "End of the travel window as a fraction of the sampling; 1 is its last step.",
                ),
                number(
                    "fresh_noise",
                    -1.0,
                    1.0,
                    0.05,
                    "Share of the noise that time travel draws anew; -1 is as the preset. Less "
                    "keeps more of every correction, more repairs the picture.",
                ),
                number(
                    "momentum",
                    0.0,
                    0.99,
                    0.05,
                    "Share of the last direction that is kept in the next one; 0 is off.",
                ),
                count(
                    "random_shift",
                    0,
                    64,
                    "Random shift in pixels of the decoded image before the conditions see it, "
                    "against adversarial patterns; 0 is off, 4 to 8 is good for text and "
                    "identity.",
                ),
                io.Combo.Input(
                    "decoder",
                    options=list(DECODERS),
                    default="auto",
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
                    optional=True,  # for workflows from before it was there
                    advanced=True,
                    tooltip=(
                        "Memory of the gradients. small: blocks of the models keep only their "
                        "inputs and run again in each backward; a fifth to a tenth of the model's "
                        "share, half of the VAE's. fast: they keep all. auto: fast if that fits."
                    ),
                ),
            ],
            outputs=[
                Settings.Output(display_name="settings", tooltip="Connect to a Z-Magic sampler.")
            ],
        )

    @classmethod
    def run(cls, preset, decoder="auto", memory="auto", **values) -> io.NodeOutput:
        return io.NodeOutput(HostSettings(_settings_from(preset, values), decoder, memory))


def _settings_from(name: str, values: dict) -> GuidanceSettings:
    """The preset with every widget that is not left as the preset."""
    changes = {
        key: value
        for key, value in values.items()
        if value not in (AS_PRESET, NUMBERS_AS_PRESET.get(key, AS_PRESET))
    }
    return preset(name, **changes)


NODES = [ZMagicSettings]
