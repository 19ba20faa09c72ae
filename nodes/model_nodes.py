"""Loaders of models."""

from comfy_api.latest import io

from ..host.demo_model import (
    MAN_FILE,
    WOMAN_FILE,
    demo_conditioning,
    load_autoencoder,
    load_photograph,
    load_unet,
)

__all__ = ["NODES"]

CATEGORY = "Z-Magic/models"


class ZMagicLoadDemo(io.ComfyNode):
    """The portrait model that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLoadDemo",
            display_name="Load Z-Magic Demo",
            category=CATEGORY,
            description=(
                "Loads the small portrait model that comes with this pack (30 MB, 128 x 128 "
                "pixels, no prompt), to try guidance in seconds on any machine."
            ),
            search_aliases=["demo model", "tiny model", "example checkpoint", "Z-Magic"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="A small model of the SD1.5 family: use latents of 128 x 128 pixels.",
                ),
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip=(
                        "The model knows no text: connect this to both positive and negative, "
                        "and set cfg to 1."
                    ),
                ),
                io.Vae.Output(display_name="VAE", tooltip="The model's own autoencoder."),
                io.Image.Output(
                    display_name="photograph",
                    tooltip="A portrait in the public domain, to take colours, edges or a "
                    "likeness from.",
                ),
                io.Image.Output(
                    display_name="woman",
                    tooltip="A rendered woman who does not exist, as a reference for identity.",
                ),
                io.Image.Output(
                    display_name="man",
                    tooltip="A rendered man who does not exist, as a reference for identity.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        try:
            return io.NodeOutput(
                load_unet(),
                demo_conditioning(),
                load_autoencoder(),
                load_photograph(),
                load_photograph(WOMAN_FILE),
                load_photograph(MAN_FILE),
            )
        except FileNotFoundError as error:
            raise ValueError(f"Load Z-Magic Demo: {error}") from None


NODES = [ZMagicLoadDemo]
