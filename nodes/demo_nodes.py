"""Loaders of what comes with the pack: the demo model, and the networks that know its pictures."""

from comfy_api.latest import io

from ..host.demo_model import (
    LAYOUT_FILE,
    MAN_FILE,
    WOMAN_FILE,
    load_autoencoder,
    load_photograph,
    load_text_encoder,
    load_unet,
    with_few_steps,
)
from ..host.demo_networks import demo_stamps, load_demo_networks
from . import sockets
from .bases import LOADERS, Node

__all__ = ["NODES"]


MANY_STEPS, FEW_STEPS = "20 steps, cfg 3", "4 steps, cfg 1"


class ZMagicLoadDemo(Node):
    """Load the portrait model that comes with the pack."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLoadDemo",
            display_name="Load Z-Magic Demo",
            category=LOADERS,
            description=(
                "Loads the small portrait model that comes with this pack (31 MB, 128 x 128 "
                "pixels, with a prompt), to try guidance in seconds on any machine."
            ),
            search_aliases=["demo model", "tiny model", "example checkpoint", "Z-Magic"],
            inputs=[
                io.Combo.Input(
                    "version",
                    options=[MANY_STEPS, FEW_STEPS],
                    default=MANY_STEPS,
                    optional=True,
                    tooltip=(
                        "4 steps: the model distilled to few steps, as Turbo and Lightning models "
                        "are, for the preset 'few steps'. Sample it with euler, sgm_uniform, "
                        "4 steps and cfg 1; 20 steps: with dpmpp_2m, karras and cfg 3."
                    ),
                )
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip=(
                        "A small model of the SD1.5 family: use latents of 128 x 128 pixels, "
                        "and steps and cfg as 'version' says."
                    ),
                ),
                io.Clip.Output(
                    display_name="CLIP",
                    tooltip=(
                        "The model's own text encoder. It knows words about hair, beard, glasses, "
                        "hat, clothing, background, expression, age and gender; the log names the "
                        "words of a prompt that it does not know."
                    ),
                ),
                io.Vae.Output(display_name="VAE", tooltip="The model's own autoencoder."),
                io.Image.Output(
                    display_name="photograph",
                    tooltip="A portrait in the public domain, to take colors, edges or a "
                    "likeness from.",
                ),
                io.Image.Output(
                    display_name="woman",
                    tooltip=(
                        "A synthetic portrait of a woman who does not exist, as a reference "
                        "for identity."
                    ),
                ),
                io.Image.Output(
                    display_name="man",
                    tooltip=(
                        "A synthetic portrait of a man who does not exist, as a reference for "
                        "identity."
                    ),
                ),
                io.Image.Output(
                    display_name="layout",
                    tooltip=(
                        "A synthetic portrait with other hair and clothing, as a reference "
                        "for segmentation."
                    ),
                ),
            ],
        )

    @classmethod
    def run(cls, version: str = MANY_STEPS) -> io.NodeOutput:
        model = load_unet()
        return io.NodeOutput(
            with_few_steps(model) if version == FEW_STEPS else model,
            load_text_encoder(),
            load_autoencoder(),
            load_photograph(),
            load_photograph(WOMAN_FILE),
            load_photograph(MAN_FILE),
            load_photograph(LAYOUT_FILE),
        )


class ZMagicLoadDemoNetworks(Node):
    """Load the attribute networks that know the demo model's portraits."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLoadDemoNetworks",
            display_name="Load Z-Magic Demo Networks",
            category=LOADERS,
            description=(
                "Loads the small attribute networks that come with this pack and know the demo "
                "model's portraits: text, face parts, identity and landmarks, without any other "
                "file."
            ),
            search_aliases=["demo networks", "tiny CLIP", "example networks", "Z-Magic"],
            inputs=[],
            outputs=[
                sockets.OpenClip.Output(
                    display_name="openclip",
                    tooltip="For Text, Style and Image Similarity Energy: knows sentences about "
                    "hair, clothing, age, gender, expression and background.",
                ),
                sockets.Segmenter.Output(
                    display_name="segmenter",
                    tooltip="For the Segmentation Energy: background, skin, lips, brows, eyes, "
                    "hair, clothing and beard, classes 0 to 7.",
                ),
                sockets.FaceRecognizer.Output(
                    display_name="recognizer", tooltip="For the Face Identity Energy."
                ),
                sockets.LandmarkNetwork.Output(
                    display_name="landmark_network",
                    tooltip="For the Landmark Energy, and for Locate Face to find eyes, nose and "
                    "mouth: 68 points.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls) -> tuple:
        """Change with the files: others under the same names are other networks."""
        return demo_stamps()

    @classmethod
    def run(cls) -> io.NodeOutput:
        networks = load_demo_networks()
        return io.NodeOutput(
            networks.clip, networks.parser, networks.recognizer, networks.landmarks
        )


NODES = [ZMagicLoadDemo, ZMagicLoadDemoNetworks]
