"""Two people, each in its region, of one Locate Face: two demo portraits side by side."""

import shutil

import folder_paths
import pytest
import torch
from torch import Tensor

from zmagic.guidance.conditions import begin_run, begin_step, region_at
from zmagic.host.demo_model import MAN_FILE, WOMAN_FILE, face_in, load_photograph
from zmagic.nodes.demo_nodes import ZMagicLoadDemoNetworks
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity

from .derivatives import one_thread
from .face_locations import face_location

SIDE = 128  # of a portrait


# Squares of the portraits that the recognizer's crop of the face is cut from, as in the graph of
# two people: left, top and side in pixels.
HEADS = {WOMAN_FILE: (26, 19, 73), MAN_FILE: (18, 13, 91)}


@pytest.fixture(scope="module")
def networks():
    """The demo's recognizer and landmark network."""
    with torch.inference_mode():
        return ZMagicLoadDemoNetworks.execute().args[2:4]


def side_by_side(left: str, right: str) -> tuple[Tensor, list[dict]]:
    """A picture ``[1, 3, 128, 256]`` and the boxes of its faces as ComfyUI's nodes have them."""
    boxes = []
    for i, file in enumerate((left, right)):
        x0, y0, x1, y1 = (face_in(file).boxes[0] * SIDE).tolist()
        boxes.append({"x": x0 + i * SIDE, "y": y0, "width": x1 - x0, "height": y1 - y0})
    portraits = [load_photograph(file).movedim(-1, 1) for file in (left, right)]
    return torch.cat(portraits, dim=-1).float(), boxes


def half(side: str, width: float = 0.7) -> Tensor:
    """A region of the left or right 70 %: a part of the other's face is in it as well."""
    mask = torch.zeros(1, SIDE, 2 * SIDE)
    columns = int(width * 2 * SIDE)
    mask[..., :columns] = 1.0
    return mask if side == "left" else mask.flip(-1)


def energies(recognizer, location, picture: Tensor) -> Tensor:
    """The energies ``[2]`` of two conditions in a chain: her on the left, him on the right."""
    chain = None
    for file, side in ((WOMAN_FILE, "left"), (MAN_FILE, "right")):
        left, top, size = HEADS[file]
        crop = load_photograph(file)[:, top : top + size, left : left + size]
        with torch.inference_mode():
            chain = ZMagicFaceIdentity.execute(
                recognizer=recognizer,
                reference=crop,
                face_location=location,
                weight=1.0,
                start=0.0,
                end=1.0,
                region=half(side),
                conditions=chain,
            ).args[0]
    chain = begin_run(chain)
    begin_step(chain, 0)
    with torch.no_grad(), one_thread():
        return torch.cat([c.energy(picture, region_at(c, picture)) for c in chain])


@pytest.mark.parametrize("method", ["bounding box", "detector"])
def test_each_identity_finds_its_own_face(networks, method, tmp_path, monkeypatch, request):
    """The two on their own sides are themselves; exchanged, neither is."""
    recognizer, landmarks = networks
    if method == "detector":
        files = request.getfixturevalue("face_networks")
        shutil.copy(files / "fr_detect.onnx", tmp_path / "ultraface.onnx")
        known = ([str(tmp_path)], {".onnx"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "detection", known)

    def of(left: str, right: str, face: str = "most in the region") -> Tensor:
        picture, boxes = side_by_side(left, right)
        shared = {"face": face, "landmark_network": landmarks}
        if method == "detector":
            location = face_location(detector="ultraface.onnx", min_score=0.5, **shared)
        else:
            given = {"picture_width": 2 * SIDE, "picture_height": SIDE, **shared}
            location = face_location(method, bounding_box=[boxes], **given)
        return energies(recognizer, location, picture)

    right_way, exchanged = of(WOMAN_FILE, MAN_FILE), of(MAN_FILE, WOMAN_FILE)
    print(f"{method}: {right_way.tolist()}, exchanged {exchanged.tolist()}")
    assert (right_way < 0.5 * exchanged).all()
    if method == "bounding box":  # one place for both: one of them is compared with a stranger
        assert (of(WOMAN_FILE, MAN_FILE, "largest") > 0.5 * exchanged).any()
