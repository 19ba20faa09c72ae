"""People from the host's pose data: POSE_KEYPOINT, in the form of OpenPose's files."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..guidance.poses.layouts import OPENPOSE_PARTS, from_openpose
from ..guidance.poses.people import People, boxes_around, in_picture
from ..guidance.wording import quoted

__all__ = ["people_in_pose_data"]

# A person within so few pixels is none: coordinates up to here are fractions of the canvas.
FRACTIONS = 2.0


def people_in_pose_data(data: object, points: int, least: float) -> People:
    """The people in a POSE_KEYPOINT.

    Args:
        data: frames, or one, each with ``canvas_width``, ``canvas_height`` and ``people``; a
            person has lists of x, y and certainty, in pixels of the canvas or in fractions of it.
        points: how many key points the network finds.
        least: points that are less certain do not count.

    Raises:
        ValueError: the data have another form or no people, or their canvases other shapes than
            the first one.
    """
    frames = [data] if isinstance(data, Mapping) else data
    try:
        people = [_in_frame(frame, points) for frame in frames]
        aspects = [frame["canvas_width"] / frame["canvas_height"] for frame in frames]
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError, RuntimeError) as e:
        raise ValueError(
            "'keypoints' must be what SDPose Keypoint Extractor, or a DWPose or OpenPose node puts "
            f"out, got {quoted(data)}"
        ) from e
    if not any(people):
        raise ValueError("'keypoints' holds no person: look at the picture that it is made of")
    if any(abs(aspect - aspects[0]) > 1e-3 for aspect in aspects):
        raise ValueError("'keypoints' must be of pictures of one shape, got several")
    most = max(map(len, people))
    nobody = torch.zeros(points, 3, dtype=torch.float64)
    stacked = torch.stack([torch.stack([*p, *[nobody] * (most - len(p))]) for p in people])
    places, certain = stacked[..., :2], stacked[..., 2]
    counts = ((certain >= least) & (certain > 0.0) & in_picture(places)).double()
    return People(places, counts, boxes_around(places, counts, aspects[0]), aspects[0])


def _in_frame(frame: Mapping, points: int) -> list[Tensor]:
    canvas = torch.tensor((frame["canvas_width"], frame["canvas_height"]), dtype=torch.float64)
    if not bool((canvas > 0.0).all()):
        raise ValueError("'keypoints' is of a canvas without an area")
    return [_person(person, canvas, points) for person in frame["people"]]


def _person(person: Mapping, canvas: Tensor, points: int) -> Tensor:
    parts = {}
    for name in OPENPOSE_PARTS:
        numbers = person.get(name)
        if isinstance(numbers, Sequence) and len(numbers) or isinstance(numbers, Tensor):
            parts[name] = torch.as_tensor(numbers, dtype=torch.float64).reshape(-1, 3)
    if parts and max(float(part[:, :2].max()) for part in parts.values()) > FRACTIONS:
        # Whole numbers are pixel centers.
        parts = {n: torch.cat(((p[:, :2] + 0.5) / canvas, p[:, 2:]), 1) for n, p in parts.items()}
    return from_openpose(parts, points).nan_to_num()
