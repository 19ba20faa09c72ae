"""The node of regions by prompt, on SAM 3 of ComfyUI."""

from comfy_api.latest import io

from ..guidance.live_regions import LiveRegion
from ..host.sam3_regions import sam3_finder
from . import sockets
from .bases import LOADERS, Node

__all__ = ["NODES"]

ADVICE = "Lower 'threshold', or name it in other words; the prompt of the picture must ask for it"


class ZMagicRegionByPrompt(Node):
    """Make a region of what a text names, wherever the model puts it."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicRegionByPrompt",
            display_name="Region by Prompt",
            category=LOADERS,
            description=(
                "A region for any energy that a text names: the dress, the sky, the left hand. "
                "It is looked for in the picture while that is made, by SAM 3 of ComfyUI."
            ),
            search_aliases=[
                "SAM3",
                "segment anything",
                "region by text",
                "mask by prompt",
                "regional",
                "live mask",
                "Z-Magic",
            ],
            inputs=[
                io.Model.Input("sam3_model", tooltip="SAM 3 or SAM 3.1, from Load Checkpoint."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip=(
                        "From CLIP Text Encode with the CLIP of the same checkpoint. Several "
                        "things are separated by commas; 'person:3' is up to three of them."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip=(
                        "How certain it has to be. Less finds it in an earlier, more blurred "
                        "picture, and sooner something else."
                    ),
                ),
                io.Int.Input(
                    "refresh_every",
                    default=3,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Look again after this many steps; where it was not seen yet, in every "
                        "step."
                    ),
                ),
            ],
            outputs=[
                sockets.Region.Output(
                    display_name="region", tooltip="Connect to region of any energy."
                )
            ],
        )

    @classmethod
    def run(
        cls, sam3_model, conditioning: list, threshold: float, refresh_every: int
    ) -> io.NodeOutput:
        finder = sam3_finder(sam3_model, conditioning, threshold, "what the prompt names")
        return io.NodeOutput(LiveRegion(finder, refresh_every, ADVICE))


NODES = [ZMagicRegionByPrompt]
