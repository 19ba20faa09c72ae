"""Which key point is which: the orders of pose networks, and of pose data in OpenPose's form."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["GROUPS", "KNOWN", "OPENPOSE_PARTS", "chosen_points", "from_openpose"]

# COCO (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014): nose, eyes, ears,
# shoulders, elbows, wrists, hips, knees, ankles, of each pair the left one first. The other orders
# begin with it.
BODY = range(17)

# Which points belong to which part of the person, by the number of points.
_GROUPS: dict[int, dict[str, Iterable[int]]] = {
    17: {"body": BODY},
    # Halpe 26 (Fang et al., "AlphaPose", TPAMI 2022): COCO, top of the head, neck, hip, feet.
    26: {"body": range(20), "feet": range(20, 26)},
    # COCO-WholeBody (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020).
    133: {"body": BODY, "feet": range(17, 23), "face": range(23, 91), "hands": range(91, 133)},
}
KNOWN = tuple(_GROUPS)

GROUPS = ("body", "body and feet", "body and hands", "body and face", "hands", "face", "all")

# The lists of numbers that one person has in OpenPose's form, and how many points each holds.
OPENPOSE_PARTS = {
    "pose_keypoints_2d": 18,
    "foot_keypoints_2d": 6,
    "face_keypoints_2d": 68,  # and often the two pupils, which are in the body as well
    "hand_left_keypoints_2d": 21,
    "hand_right_keypoints_2d": 21,
}

# OpenPose's number of each of COCO's points; its own number 1 is the neck.
_OPENPOSE_OF_COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
_NECK = 1
_LEFT_WRIST, _RIGHT_WRIST = 7, 4  # OpenPose's

# Halpe 26 has the feet's points in another order (big toes, small toes, heels) than COCO (big toe,
# small toe, heel; left, right): COCO's number of each.
_HALPE_FEET = (0, 3, 1, 4, 2, 5)


def chosen_points(group: str, points: int) -> list[int]:
    """The numbers of the key points of a group, in order.

    Args:
        group: the part of the person, one of GROUPS.
        points: how many key points the network finds.

    Raises:
        ValueError: the group is unknown, or the network has no such points.
    """
    if group not in GROUPS:
        raise ValueError(f"points must be one of {', '.join(GROUPS)}, got {group}")
    if group == "all":
        return list(range(points))
    parts = _GROUPS.get(points, {})
    missing = [part for part in group.split(" and ") if part not in parts]
    if missing:
        having = " or ".join(
            str(count) for count, known in _GROUPS.items() if set(group.split(" and ")) <= {*known}
        )
        raise ValueError(
            f"points '{group}' needs a network of {having} key points, of which it is known where "
            f"they are; this one finds {points}"
        )
    return sorted(i for part in group.split(" and ") for i in parts[part])


def from_openpose(parts: Mapping[str, Tensor], points: int) -> Tensor:
    """A person's key points in a network's order: ``[points, 3]``, x, y and how certain each is.

    What the data do not hold is 0 certain. Nodes disagree which hand they call the left one: each
    is that of the nearer wrist, where both hands and both wrists are known.

    Args:
        parts: for each name of OPENPOSE_PARTS that the data have, its points ``[N, 3]``.
        points: how many key points the network finds, one of KNOWN.

    Raises:
        ValueError: it is not known in which order the network has its points.
    """
    if points not in KNOWN:
        known = ", ".join(map(str, KNOWN))
        raise ValueError(
            f"pose data need a network of {known} key points, whose order is known; this one "
            f"finds {points}: connect a photograph instead"
        )
    given = {name: _padded(parts.get(name), count) for name, count in OPENPOSE_PARTS.items()}
    openpose, feet = given["pose_keypoints_2d"], given["foot_keypoints_2d"]
    body = openpose[list(_OPENPOSE_OF_COCO)]
    if points == 17:
        return body
    if points == 26:
        unknown = torch.zeros_like(body[:1])
        neck = openpose[_NECK : _NECK + 1]
        return torch.cat((body, unknown, neck, unknown, feet[list(_HALPE_FEET)]))
    left, right = _by_wrists(
        given["hand_left_keypoints_2d"], given["hand_right_keypoints_2d"], openpose
    )
    return torch.cat((body, feet, given["face_keypoints_2d"], left, right))


def _padded(points: Tensor | None, count: int) -> Tensor:
    """The first ``count`` points ``[count, 3]``, those that are not there 0 certain."""
    padded = torch.zeros(count, 3, dtype=torch.float64)
    if points is not None:
        kept = points[:count]
        padded[: len(kept)] = kept
    return padded


def _by_wrists(left: Tensor, right: Tensor, body: Tensor) -> Sequence[Tensor]:
    """The hands, exchanged if their roots lie nearer to the other wrists."""
    roots, wrists = (left[0], right[0]), (body[_LEFT_WRIST], body[_RIGHT_WRIST])
    if not all(point[2] > 0.0 for point in (*roots, *wrists)):
        return left, right
    here, there = (
        sum(float((root[:2] - wrist[:2]).norm()) for root, wrist in zip(roots, order, strict=True))
        for order in (wrists, wrists[::-1])
    )
    return (right, left) if there < here else (left, right)
