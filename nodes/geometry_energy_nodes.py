"""Energy nodes on ComfyUI's own estimators of geometry: depth and normals."""

from comfy_api.latest import io
from torch import Tensor
from torch.nn import functional as F

from ..guidance.energies import Depth, Normals
from ..host.geometry_networks import PATCH, Estimator, depth_anything, moge
from .alternatives import require_one
from .bases import EnergyNode
from .condition_inputs import REFERENCE_BATCH
from .picture_inputs import pictures_and_mask, reference_mask_input

__all__ = ["NODES"]

# The sockets of ComfyUI's own loaders.
DepthAnythingModel = io.Custom("DA3_MODEL")
MoGeModel = io.Custom("MOGE_MODEL")

PHOTOGRAPH = "photograph"
NEAR_IS_WHITE, NEAR_IS_BLACK = "depth map, near is white", "depth map, near is black"
OPENGL, DIRECTX = "normal map (OpenGL)", "normal map (DirectX)"

# Shares of red, green and blue in a depth map that is gray anyway.
GRAY = 1.0 / 3.0


def size_input() -> io.Int.Input:
    """Make the input that says at which size a network looks at pictures."""
    return io.Int.Input(
        "size",
        default=28 * PATCH,
        min=10 * PATCH,
        max=74 * PATCH,
        step=PATCH,
        advanced=True,
        tooltip=(
            "Longer side in pixels at which the network looks at the picture. Larger sees finer "
            "forms and costs by the square."
        ),
    )


class ZMagicDepth(EnergyNode):
    """Pull what is near and far in the picture towards a depth map."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicDepth",
            display_name="Depth Energy",
            description=(
                "Pulls what is near and what is far in the picture to where a photograph or a "
                "depth map has it, by Depth Anything 3 or MoGe of ComfyUI. No ControlNet needed."
            ),
            search_aliases=[
                "depth map",
                "depth anything",
                "MoGe",
                "MiDaS",
                "depth ControlNet",
                "composition",
                "3D",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The photograph or the depth map. Any size: scaled to fill the picture. "
                        f"{REFERENCE_BATCH}"
                    ),
                ),
                io.Combo.Input(
                    "reference_is",
                    options=[PHOTOGRAPH, NEAR_IS_WHITE, NEAR_IS_BLACK],
                    default=PHOTOGRAPH,
                    tooltip=(
                        "photograph: its depth is estimated by the same network. depth map: gray "
                        "levels, as depth nodes and ControlNets have them (near is white). Their "
                        "range does not matter."
                    ),
                ),
                DepthAnythingModel.Input(
                    "da3_model",
                    optional=True,
                    tooltip="From Load Depth Anything 3. Connect this or 'moge_model'.",
                ),
                MoGeModel.Input(
                    "moge_model", optional=True, tooltip="From Load MoGe Model, instead of it."
                ),
                size_input(),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        reference_is: str,
        size: int,
        da3_model=None,
        moge_model=None,
        reference_mask: Tensor | None = None,
    ) -> Depth:
        source = ".\nThey come from Load Depth Anything 3 and Load MoGe Model of a newer ComfyUI"
        require_one(source, da3_model=da3_model, moge_model=moge_model)
        estimator = moge(moge_model, size) if da3_model is None else depth_anything(da3_model, size)
        pictures, mask = pictures_and_mask(reference, reference_mask)
        if reference_is == PHOTOGRAPH:
            return Depth(estimator, *_estimated(estimator, pictures, mask))
        gray = (GRAY * pictures).sum(1, keepdim=True)
        return Depth(estimator, gray if reference_is == NEAR_IS_WHITE else 1.0 - gray, mask)


class ZMagicNormals(EnergyNode):
    """Pull the picture's surfaces towards the directions of others."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicNormals",
            display_name="Normals Energy",
            description=(
                "Turns the picture's surfaces as they are turned in a photograph or a normal map, "
                "by MoGe of ComfyUI: its forms, whatever the light."
            ),
            search_aliases=["normal map", "MoGe", "relief", "geometry", "normal ControlNet"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The photograph or the normal map. Any size: scaled to fill the picture. "
                        f"{REFERENCE_BATCH}"
                    ),
                ),
                io.Combo.Input(
                    "reference_is",
                    options=[PHOTOGRAPH, OPENGL, DIRECTX],
                    default=PHOTOGRAPH,
                    tooltip=(
                        "photograph: its normals are estimated by the same network. normal map: "
                        "red is right; green is up (OpenGL) or down (DirectX); blue is towards "
                        "the viewer."
                    ),
                ),
                MoGeModel.Input(
                    "moge_model",
                    tooltip="From Load MoGe Model: a file of MoGe 2 with 'normal' in its name.",
                ),
                size_input(),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        reference_is: str,
        moge_model,
        size: int,
        reference_mask: Tensor | None = None,
    ) -> Normals:
        estimator = moge(moge_model, size, normals=True)
        pictures, mask = pictures_and_mask(reference, reference_mask)
        if reference_is == PHOTOGRAPH:
            return Normals(estimator, *_estimated(estimator, pictures, mask))
        # From the map's axes to the network's: y down, z away from the viewer.
        turned = pictures.new_tensor([1.0, -1.0 if reference_is == OPENGL else 1.0, -1.0])
        return Normals(estimator, (2.0 * pictures - 1.0) * turned.view(1, 3, 1, 1), mask)


NODES = [ZMagicDepth, ZMagicNormals]


def _estimated(
    estimator: Estimator, pictures: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What the network makes of photographs, and the mask at its resolution."""
    target = estimator.of_reference(pictures)
    if mask is None:
        return target, None
    return target, F.interpolate(mask, size=target.shape[-2:], mode="area")
