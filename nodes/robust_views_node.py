"""The node that shows conditions noisy, blurred or shifted pictures, so that they see through."""

from comfy_api.latest import io

from ..guidance.pictures.views import ViewOptions
from ..guidance.robust_views import robust_conditions
from .bases import Node
from .condition_inputs import CATEGORY, SEARCH_ALIASES, conditions_output
from .notices import notify
from .sockets import Conditions

__all__ = ["NODES"]


class ZMagicRobustViews(Node):
    """Average the energies of conditions over views of the picture."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicRobustViews",
            display_name="Robust Views",
            category=CATEGORY,
            description=(
                "Shows the conditions that come in several noisy, blurred or shifted views of the "
                "picture, so that the picture itself has to satisfy them and not a pattern of "
                "pixels."
            ),
            search_aliases=[*SEARCH_ALIASES, "augmentation", "jitter", "noise", "LGD", "cutouts"],
            inputs=[
                Conditions.Input(
                    "conditions",
                    tooltip="The conditions that see the views. Those that are appended behind "
                    "this node see the picture as it is.",
                ),
                io.Int.Input(
                    "views",
                    default=2,
                    min=1,
                    max=16,
                    tooltip="Views in each step, which each condition is averaged over. Each one "
                    "costs as much as looking at the picture: the networks, not the model.",
                ),
                io.Float.Input(
                    "noise",
                    default=0.05,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Noise in the views, as a share of the way from black to white. "
                    "The more, the less each step follows the conditions; landmarks want little.",
                ),
                io.Float.Input(
                    "blur",
                    default=0.0,
                    min=0.0,
                    max=32.0,
                    step=0.1,
                    round=False,
                    tooltip="Blur of the views in pixels: finer detail does not count.",
                ),
                io.Float.Input(
                    "shift",
                    default=0.02,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    round=False,
                    tooltip="How far views are shifted at most, as a share of the picture; for "
                    "face networks of the face. Conditions that ask for places are not shifted.",
                ),
                io.Boolean.Input(
                    "flip",
                    default=False,
                    tooltip="Mirror half of the views. Not where letters or left and right count; "
                    "conditions that ask for places are not mirrored.",
                ),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def run(cls, conditions, views, noise, blur, shift, flip) -> io.NodeOutput:
        options = ViewOptions(views, noise, blur, shift, flip)
        seen, said = robust_conditions(conditions, options)
        if not options.changes:
            said = ["raise 'noise', 'blur' or 'shift': views without any of them are the picture."]
        elif views > 1 and not options.differ:
            said.append("Views that are only blurred are all the same: one is made.")
        notify(cls, said)
        return io.NodeOutput(seen)


NODES = [ZMagicRobustViews]
