"""The node of the method: what only those change who compare methods."""

from typing import Any

from comfy_api.latest import io

from ..guidance.settings import CHOICES, PRESETS, RANGES, preset
from .bases import Node
from .settings_node import ALIASES, CATEGORY
from .sockets import Method

__all__ = ["AS_PRESET", "NODES", "number_as_preset"]

AS_PRESET = "as preset"


def number_as_preset(name: str) -> int | float:
    """What stands for "as preset" where a word cannot: the number below the range."""
    return RANGES[name][0] - 1


class ZMagicMethod(Node):
    """Replace single choices of a preset."""

    @classmethod
    def schema(cls) -> io.Schema:
        def choice(name: str, tooltip: str):
            return io.Combo.Input(
                name, options=[AS_PRESET, *CHOICES[name]], default=AS_PRESET, tooltip=tooltip
            )

        def number(name: str, high: float, step: float, tooltip: str, optional: bool = False):
            low = number_as_preset(name)
            return io.Float.Input(
                name,
                optional=optional,
                default=low,
                min=low,
                max=high,
                step=step,
                round=False,
                tooltip=tooltip,
            )

        def count(name: str, high: int, tooltip: str):
            low = number_as_preset(name)
            return io.Int.Input(name, default=low, min=low, max=high, tooltip=tooltip)

        return io.Schema(
            node_id="ZMagicMethod",
            display_name="Z-Magic Method",
            category=CATEGORY,
            description=(
                "Replaces single choices of a preset, for those who compare methods. Every other "
                "one stays as the preset of Z-Magic Settings says, which shows what is replaced."
            ),
            search_aliases=[*ALIASES, "gradient", "step size", "time travel"],
            inputs=[
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
                    5.0,
                    0.01,
                    "How far the first condition moves the picture before the second one looks, "
                    "in units of the noise level (gradient_path full) or of the posterior spread "
                    "(the other paths). 0 removes the dependence; 0.03 to 0.3 is good; -1 is as "
                    "the preset.",
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
                    10.0,
                    0.05,
                    "How far CAGrad may leave the mean of the tasks to help the worst one, as a "
                    "share of the mean's length. 0 is the mean; 0.4 is good, but can go against a "
                    "task; from 1 on a small step goes against none; -1 is as the preset.",
                ),
                choice(
                    "step_rule",
                    "The length of a correction: by the posterior spread (posterior), the remaining"
                    " noise (residual), the score itself (classifier), the CFG difference "
                    "(freedom), the energies' values (polyak), or to the sphere of the step's "
                    "noise (spherical, for the sampler euler). The help page says more.",
                ),
                count(
                    "guide_every",
                    100,
                    "Guide every k-th step only: 1 guides all, 2 halves the cost, 0 is as the "
                    "preset.",
                ),
                count(
                    "time_travel",
                    20,
                    "Predictions per step inside the travel window, with fresh noise in between; "
                    "0 is as the preset, 1 is off, 2 to 5 follow the conditions closer at a "
                    "multiple of the cost.",
                ),
                number(
                    "travel_start",
                    1.0,
                    0.01,
                    "Start of the travel window as a fraction of the sampling; 0 is its first "
                    "step, -1 is as the preset.",
                ),
                number(
                    "travel_end",
                    1.0,
                    0.01,
                    "End of the travel window as a fraction of the sampling; 1 is its last step, "
                    "-1 is as the preset.",
                ),
                number(
                    "fresh_noise",
                    1.0,
                    0.05,
                    "Share of the noise that time travel draws anew; -1 is as the preset. Less "
                    "keeps more of every correction, more repairs the picture.",
                ),
                number(
                    "momentum",
                    0.99,
                    0.05,
                    "Share of the last direction that is kept in the next one; 0 is off, -1 is as "
                    "the preset.",
                ),
                count(
                    "random_shift",
                    64,
                    "Random shift in pixels of the decoded image before the conditions see it, "
                    "against adversarial patterns; 0 is off, 4 to 8 is good for text and "
                    "identity, -1 is as the preset.",
                ),
                number(
                    "mean_share",
                    1.0,
                    0.05,
                    "Share of the strength that goes to steps on the prediction itself, without "
                    "the model (TFG's mean guidance, UGD's backward guidance); -1 is as the "
                    "preset. Without a backward through the model all of it does.",
                ),
                count(
                    "mean_steps",
                    20,
                    "How many such steps, each with a look of its own; 0 is as the preset.",
                ),
                number(
                    "smoothing",
                    2.0,
                    0.05,
                    "Spread of the predictions around the present one that the conditions see "
                    "the mean of, in units of the posterior spread (TFG); 0 is off, -1 is as the "
                    "preset.",
                ),
                count(
                    "smoothing_samples",
                    16,
                    "How many of them are drawn, and decoded at each look; 0 is as the preset.",
                ),
                number(
                    "guided_share",
                    1.0,
                    0.05,
                    "Share of the sampler's steps, from the first one on, that is guided at all; "
                    "1 is all of them, -1 is as the preset ('few steps': the first half).",
                    optional=True,
                ),
            ],
            outputs=[
                Method.Output(
                    display_name="method", tooltip="Connect to 'method' of Z-Magic Settings."
                )
            ],
        )

    @classmethod
    def run(cls, **values) -> io.NodeOutput:
        changes = {name: value for name, value in values.items() if not _is_as_preset(name, value)}
        _refuse_what_no_preset_takes(changes)
        return io.NodeOutput(changes)


def _is_as_preset(name: str, value: str | float) -> bool:
    return value == (AS_PRESET if name in CHOICES else number_as_preset(name))


def _refuse_what_no_preset_takes(changes: dict[str, Any]) -> None:
    """Raise ValueError here, by the name of the node that has the inputs."""
    refused = []
    for name in PRESETS:
        try:
            preset(name, **changes)
        except ValueError as error:
            refused.append(error)
    if len(refused) == len(PRESETS):
        raise refused[0]


NODES = [ZMagicMethod]
