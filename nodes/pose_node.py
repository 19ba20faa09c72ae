"""The node of poses, on SDPose of ComfyUI or on the heat maps of an ONNX file."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import Pose
from ..guidance.poses.layouts import GROUPS, chosen_points
from ..guidance.poses.looking import PointFinder, people_in
from ..guidance.poses.people import People
from ..host.detections import boxes_in_pictures
from ..host.image_networks import ImageNetwork
from ..host.pose_data import people_in_pose_data
from ..host.pose_networks import SDPOSE_STEP, onnx_finder, outside_sampling, sdpose_finder
from . import sockets
from .alternatives import require_one
from .bases import EnergyNode
from .condition_inputs import REFERENCE_BATCH
from .picture_inputs import pictures

__all__ = ["NODES"]

# The socket of ComfyUI's pose nodes, and of others' who follow OpenPose.
PoseKeypoint = io.Custom("POSE_KEYPOINT")

# The height that SDPose is trained for.
SDPOSE_HEIGHT = 4 * SDPOSE_STEP


class ZMagicPose(EnergyNode):
    """Pull the people of the picture into a pose."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicPose",
            display_name="Pose Energy",
            description=(
                "Puts the people of the picture into the pose of a photograph or of pose data: "
                "body, hands and face, each person in its place. No ControlNet needed."
            ),
            search_aliases=[
                "pose",
                "OpenPose",
                "DWPose",
                "SDPose",
                "RTMPose",
                "keypoints",
                "skeleton",
                "pose ControlNet",
                "hands",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip=(
                        "A photograph of the pose; scaled to fill the picture. Connect this or "
                        f"'keypoints'. {REFERENCE_BATCH}"
                    ),
                ),
                io.BoundingBox.Input(
                    "person_boxes",
                    force_input=True,
                    optional=True,
                    tooltip=(
                        "For a photograph of several people: a box around each, from any "
                        "detector. Not connected: the photograph shows one person."
                    ),
                ),
                PoseKeypoint.Input(
                    "keypoints",
                    optional=True,
                    tooltip=(
                        "Pose data of one or several people, from SDPose Keypoint Extractor, "
                        "DWPose or OpenPose. Instead of a photograph."
                    ),
                ),
                io.Model.Input(
                    "sdpose_model",
                    optional=True,
                    tooltip=(
                        "SDPose from Load Checkpoint, with its VAE below. Connect these or "
                        "'pose_network'."
                    ),
                ),
                io.Vae.Input(
                    "sdpose_vae", optional=True, tooltip="The VAE of SDPose's own checkpoint."
                ),
                sockets.OnnxNetwork.Input(
                    "pose_network",
                    optional=True,
                    tooltip=(
                        "From Load ONNX Network: a pose network of one person, with heat maps "
                        "(HRNet, ViTPose) or SimCC (RTMPose). Cheaper than SDPose."
                    ),
                ),
                io.Combo.Input(
                    "points",
                    options=list(GROUPS),
                    default=GROUPS[0],
                    tooltip=(
                        "Which key points count. Hands and face need a network of 133 points, "
                        "feet one of 26 or 133."
                    ),
                ),
                io.Float.Input(
                    "min_score",
                    default=0.3,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "Key points of the reference that are less certain do not count: hidden "
                        "ones, or those outside of it."
                    ),
                ),
                io.Int.Input(
                    "size",
                    default=SDPOSE_HEIGHT // 2,
                    min=SDPOSE_STEP,
                    max=2 * SDPOSE_HEIGHT,
                    step=SDPOSE_STEP,
                    advanced=True,
                    tooltip=(
                        "For SDPose: the height in pixels at which it looks at a person. It is "
                        f"trained for {SDPOSE_HEIGHT}; half of that costs a quarter."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        points: str,
        min_score: float,
        size: int,
        reference: Tensor | None = None,
        person_boxes: object = None,
        keypoints: object = None,
        sdpose_model=None,
        sdpose_vae=None,
        pose_network: ImageNetwork | None = None,
    ) -> Pose:
        finder = _finder(sdpose_model, sdpose_vae, pose_network, size)
        chosen = chosen_points(points, finder.points)
        require_one(reference=reference, keypoints=keypoints)
        if reference is None:
            if person_boxes is not None:
                raise ValueError(
                    "disconnect 'person_boxes': they belong to a photograph at 'reference', "
                    "'keypoints' knows its people"
                )
            people = people_in_pose_data(keypoints, finder.points, min_score)
        else:
            people = _in_photographs(finder, pictures(reference), person_boxes, min_score)
        people = people.only(chosen)
        if not (people.counts > 0.0).any():
            raise ValueError(
                f"no key point of '{points}' is in "
                f"{'the photograph' if reference is not None else 'the pose data'} with at least "
                f"'min_score' {min_score:g}: lower it, or choose other points"
            )
        return Pose(finder, people)


NODES = [ZMagicPose]


def _finder(model, vae, network: ImageNetwork | None, size: int) -> PointFinder:
    require_one(sdpose_model=model, pose_network=network)
    if (model is None) != (vae is None):
        raise ValueError(
            "'sdpose_model' and 'sdpose_vae' belong together: connect both outputs of the "
            "checkpoint of SDPose, or none"
        )
    return onnx_finder(network) if model is None else sdpose_finder(model, vae, size)


def _in_photographs(
    finder: PointFinder, photographs: Tensor, person_boxes: object, least: float
) -> People:
    boxes = None
    if person_boxes is not None:
        size = (photographs.shape[-1], photographs.shape[-2])
        boxes = boxes_in_pictures(person_boxes, size, "person_boxes")
        if len(boxes) not in (1, len(photographs)):
            raise ValueError(
                f"'person_boxes' holds boxes for {len(boxes)} pictures, 'reference' has "
                f"{len(photographs)}"
            )
    people, _ = outside_sampling(finder, lambda: people_in(finder, photographs, boxes, least))
    return people
