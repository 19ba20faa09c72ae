"""Locate Face inside the real host: detectors, the host's own detections, fixed places."""

import os
import shutil
import socket
import sys
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import skimage
import torch
from insightface.model_zoo import get_model

from zmagic.guidance.faces.crops import ARCFACE_POINTS, Faces
from zmagic.guidance.faces.tracker import FaceTracker
from zmagic.host.face_detectors import detector_choices
from zmagic.host.face_networks import LandmarkOptions, load_landmark_network
from zmagic.nodes.locate_face_node import ZMagicLocateFace

from .derivatives import one_thread
from .face_locations import face_location, method_inputs
from .published_detector import write_scrfd

PACK = Path(__file__).resolve().parents[2]

METHODS = {
    "detector": {"face", "landmark_network", "min_score", "refresh_every", "fallback"},
    "face landmarks": {"face_landmarks", "face", "reference_is"},
    "bounding box": {"bounding_box", "picture_width", "picture_height", "face", "reference_is"},
    "fixed box": {"x", "y", "width", "height", "reference_is"},
    "whole picture": set(),
}

# The astronaut's eyes, nose and mouth corners in pixels of 512, by MTCNN.
ASTRONAUT = torch.tensor([[205.0, 102], [247, 104], [225, 129], [202, 139], [245, 142]]) / 512


@pytest.fixture(scope="module")
def models(tmp_path_factory, face_networks):
    """Model folders with an UltraFace and a pack of insightface, twice, in nested folders."""
    models = tmp_path_factory.mktemp("models")
    (models / "detection").mkdir()
    shutil.copy(face_networks / "fr_detect.onnx", models / "detection" / "ultraface.onnx")
    path = write_scrfd(models)
    nested = models / "insightface" / "models" / "antelopev2" / "antelopev2"
    nested.mkdir(parents=True)
    shutil.copy(path, nested / "scrfd_10g_bnkps.onnx")
    shutil.copy(face_networks / "fr_feature.onnx", path.parent / "w600k_r50.onnx")
    return models


@pytest.fixture(autouse=True)
def known(models, monkeypatch):
    """The host knows those folders and no others."""
    monkeypatch.setattr(folder_paths, "models_dir", str(models))
    for name in ("insightface", "detection", "onnx"):
        entry = ([str(models / name)], {".onnx"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, entry)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255.0


def locator(**inputs):
    """Return what the node puts out in a prompt, on one thread."""
    with one_thread():
        return face_location(**inputs)


# ---------------------------------------------------------------- detectors


def test_ultraface_finds_the_face_and_follows_it(astronaut):
    found = locator(detector="ultraface.onnx")
    (faces,) = found.in_picture(astronaut)
    assert (faces.boxes[0, :2] < ASTRONAUT).all() and (faces.boxes[0, 2:] > ASTRONAUT).all()
    tracker = FaceTracker(found, faces)
    tracker.begin_step(0)
    assert torch.equal(tracker(torch.rand(1, 3, 64, 64)).points, faces.points)
    tracker.begin_step(1)
    assert torch.allclose(tracker(astronaut).boxes, faces.boxes)


def test_references_may_be_inference_tensors(astronaut):
    with torch.inference_mode():
        (faces,) = locator(detector="ultraface.onnx").in_picture(astronaut.clone())
    assert not faces.points.is_inference()


@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2", "models/buffalo_l/det_10g.onnx"])
def test_scrfd_is_insightfaces(models, astronaut, name):
    """The same boxes, points and scores as the library's own call on the same file."""
    found = locator(detector=name, min_score=0.5).detect(astronaut[0])
    path = models / "insightface" / "models" / "buffalo_l" / "det_10g.onnx"
    library = get_model(str(path), providers=["CPUExecutionProvider"])
    library.prepare(ctx_id=-1, det_thresh=0.5)
    picture = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])  # OpenCV's order
    boxes, points = library.detect(picture, input_size=(640, 640))
    assert len(found) == len(boxes) > 0
    for each, box, five in zip(found, boxes, points, strict=True):
        np.testing.assert_allclose(each.box * 512 - 0.5, box[:4], atol=1e-3)
        np.testing.assert_allclose(each.points * 512 - 0.5, five, atol=1e-3)
        assert each.score == box[4]
    wrong, _ = library.detect(np.ascontiguousarray(picture[..., ::-1]), input_size=(640, 640))
    assert not np.array_equal(wrong, boxes)


def test_a_detector_opens_no_connection(models, monkeypatch, tmp_path):
    def refused(*arguments, **options):
        raise AssertionError("a connection was opened")

    shutil.copytree(models / "insightface", tmp_path / "insightface")
    entry = ([str(tmp_path / "insightface")], {".onnx"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "insightface", entry)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert locator().detect is not None


def test_one_detector_serves_all_nodes():
    first, second = locator(), locator(face="leftmost")
    assert first.detect is second.detect
    assert locator(min_score=0.9).detect is not first.detect


def test_min_score_decides():
    gray = torch.full((1, 3, 64, 64), 0.5)
    strict, lenient = locator(min_score=0.95), locator(min_score=0.5)
    assert strict.in_picture(gray) == [None] and lenient.in_picture(gray) != [None]


def test_options_reach_the_locator():
    found = locator(refresh_every=7, face="rightmost", fallback="center")
    assert (found.every, found.choice, found.fallback) == (7, "rightmost", "center")
    assert found.networks == () and found.fixed is None


def test_a_landmark_network_finds_points_in_boxes(astronaut, face_networks):
    network = load_landmark_network(face_networks / "fr_landmark.onnx", LandmarkOptions())
    found = locator(detector="ultraface.onnx", landmark_network=network)
    assert found.networks == (network.network,)
    (faces,) = found.in_picture(astronaut)
    error = (faces.points[0] - ASTRONAUT).norm(dim=1).mean()
    assert error < 0.1 * (ASTRONAUT[1] - ASTRONAUT[0]).norm()


# ---------------------------------------------------------------- fixed places


# Around the astronaut's face, not exactly.
ROUGHLY = {"x": 0.37, "y": 0.12, "width": 0.14, "height": 0.21}


@pytest.mark.parametrize("method", ["fixed box", "bounding box"])
def test_a_landmark_network_finds_the_face_near_a_place(astronaut, face_networks, method):
    network = load_landmark_network(face_networks / "fr_landmark.onnx", LandmarkOptions())
    box = {name: 512 * value for name, value in ROUGHLY.items()}
    pixels = {"bounding_box": box, "picture_width": 512, "picture_height": 512}
    inputs = {"method": method, "reference_is": "framed like the picture", "refresh_every": 5}
    inputs |= ROUGHLY if method == "fixed box" else pixels
    found = locator(**inputs, landmark_network=network)
    assert found.networks == (network.network,) and found.every == 5
    for faces in (found.in_picture(astronaut)[0], FaceTracker(found)(astronaut)):
        error = (faces.points[0] - ASTRONAUT).norm(dim=1).mean()
        assert error < 0.1 * (ASTRONAUT[1] - ASTRONAUT[0]).norm()


def test_references_are_cropped_unless_the_node_is_told_otherwise(astronaut):
    graph_from_before = locator(method="fixed box", **ROUGHLY)
    (faces,) = graph_from_before.in_picture(astronaut)
    assert torch.equal(faces.points, Faces.whole(1, 1.0).points)
    framed = locator(method="fixed box", **ROUGHLY, reference_is="framed like the picture")
    (faces,) = framed.in_picture(astronaut)
    assert torch.equal(faces.boxes, framed.fixed.boxes)


def test_points_that_are_known_are_not_looked_for():
    faces = {"frames": [[mesh(0.0, 112.0)]], "image_size": (480, 640)}
    found = locator(method="face landmarks", face_landmarks=faces)
    assert found.points is None and found.networks == ()


def test_fixed_box_and_whole_picture():
    fixed = locator(method="fixed box", x=0.1, y=0.2, width=0.3, height=0.4).fixed
    torch.testing.assert_close(fixed.boxes.float(), torch.tensor([[0.1, 0.2, 0.4, 0.6]]))
    whole = locator(method="whole picture")
    assert whole.fixed is None and whole.detect is None
    expected = Faces.whole(2, 0.5)
    assert torch.equal(FaceTracker(whole)(torch.rand(2, 3, 64, 32)).points, expected.points)


BOX = {"x": 100, "y": 50, "width": 200, "height": 300}
SMALL = {"x": 600.0, "y": 50.0, "width": 20.0, "height": 30.0, "label": "face", "score": 0.99}


@pytest.mark.parametrize(
    ("value", "face", "expected"),
    [
        (BOX, "largest", [BOX]),
        ([SMALL, BOX], "largest", [BOX]),
        ([SMALL, BOX], "rightmost", [SMALL]),
        ([[BOX, SMALL], [SMALL]], "largest", [BOX, SMALL]),
    ],
)
def test_boxes_of_the_host(value, face, expected):
    size = {"picture_width": 800, "picture_height": 400}
    fixed = locator(method="bounding box", bounding_box=value, face=face, **size).fixed
    pixels = [[b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]] for b in expected]
    frame = torch.tensor((800.0, 400.0)).repeat(2)
    torch.testing.assert_close(fixed.boxes.float(), torch.tensor(pixels) / frame)


def mesh(left: float, size: float) -> dict:
    """A face as the host's MediaPipe node describes it, in a picture of 640 x 480 pixels."""
    eyes_nose_mouth = np.array(ARCFACE_POINTS) / 112.0 * size + (left, 100.0)
    points = np.zeros((478, 2), dtype=np.float32)
    for place, where in zip(((468,), (473,), (1,), (61,), (291,)), eyes_nose_mouth, strict=True):
        points[list(place)] = where
    low, high = eyes_nose_mouth.min(0), eyes_nose_mouth.max(0)
    return {"landmarks_xy": points, "bbox_xyxy": np.array([*low, *high], np.float32), "score": 0.9}


def test_landmarks_of_the_host():
    frames = [[mesh(50.0, 112.0), mesh(300.0, 224.0)], [mesh(10.0, 112.0)]]
    value = {"frames": frames, "image_size": (480, 640), "connection_sets": {}}
    fixed = locator(method="face landmarks", face_landmarks=value).fixed
    assert len(fixed) == 2
    expected = (np.array(ARCFACE_POINTS) / 112.0 * 224.0 + (300.0, 100.0)) / (640.0, 480.0)
    np.testing.assert_allclose(fixed.points[0], expected, atol=1e-6)
    leftmost = locator(method="face landmarks", face_landmarks=value, face="leftmost").fixed
    assert leftmost.points[0, 0, 0] < fixed.points[0, 0, 0]


# ---------------------------------------------------------------- widgets and messages


@pytest.mark.parametrize("method", METHODS)
def test_a_method_shows_what_it_uses(method):
    near = {"landmark_network", "refresh_every"} if method != "face landmarks" else set()
    assert set(method_inputs(method)) == METHODS[method] | near
    page = (PACK / "web" / "docs" / "ZMagicLocateFace.md").read_text(encoding="ascii")
    for name, entry in method_inputs(method).items():
        assert name in page and entry.tooltip, name


def test_packs_and_files_are_offered(models):
    assert detector_choices() == ["buffalo_l", "antelopev2", "ultraface.onnx"]
    schema = ZMagicLocateFace.GET_SCHEMA()
    widgets = {each.id: each for each in schema.inputs}
    assert [option.key for option in widgets["method"].options] == list(METHODS)
    chosen = {"method": "detector"}
    assert ZMagicLocateFace.validate_inputs(method=chosen, detector="not there") is True
    assert "name of a file" in ZMagicLocateFace.validate_inputs(method=chosen, detector=7)
    assert "must be one of detector, face landm" in ZMagicLocateFace.validate_inputs(detector="x")


def test_the_usual_pack_is_offered_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    for name in ("insightface", "detection", "onnx"):
        entry = ([str(tmp_path / name)], {".onnx"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, entry)
    assert detector_choices() == ["buffalo_l (not installed)"]
    with pytest.raises(ValueError, match=r"^Locate Face: face detector 'buffalo_l' not found\. .*"):
        locator()


def test_the_fingerprint_follows_the_file(models):
    def fingerprint(method: str = "detector", detector: str = "ultraface.onnx") -> tuple:
        return ZMagicLocateFace.fingerprint_inputs(method={"method": method}, detector=detector)

    before = fingerprint()
    assert before == fingerprint()
    os.utime(models / "detection" / "ultraface.onnx", (1.0, 1.0))
    assert fingerprint() != before
    assert fingerprint(detector="not there") == ("not there",)
    assert fingerprint("fixed box") == ()


def test_a_missing_detector_is_described(models):
    with pytest.raises(ValueError) as raised:
        locator(detector="buffalo_xl")
    message = str(raised.value)
    assert message.startswith("Locate Face: face detector 'buffalo_xl' not found. Put it in ")
    for part in (
        str(models / "insightface"),
        "github.com/deepinsight/insightface",
        "version-RFB-320.onnx, 1.3 MB, MIT",
        "non-commercial research only",
        "ultraface.onnx",
    ):
        assert part in message


def test_without_insightface_ultraface_still_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", None)
    assert locator(detector="ultraface.onnx", min_score=0.51).detect is not None
    with pytest.raises(
        ValueError, match="^Locate Face: the Python package 'insightface' is needed"
    ):
        locator(min_score=0.51)


PIXELS = {"method": "bounding box", "picture_width": 800, "picture_height": 400}
LANDMARKS = {"method": "face landmarks"}
POINT = {**mesh(0.0, 112.0), "landmarks_xy": np.full((478, 2), 50.0)}
EMPTY = {"frames": [[mesh(0.0, 112.0)], []], "image_size": (480, 640)}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"detector": "models/buffalo_l/w600k_r50.onnx"}, "w600k_r50.onnx is no face detector: "),
        (LANDMARKS, "'face_landmarks' must be what Detect Face Landmarks .* got None"),
        (PIXELS, "'bounding_box' must be boxes with x, y, .* got NoneType"),
        (
            {"method": "bounding box", "bounding_box": BOX},
            "set 'picture_width' and 'picture_height' to the size in pixels .* got 0 x 0",
        ),
        (
            {**LANDMARKS, "face_landmarks": EMPTY},
            "'face_landmarks' holds no face in picture 2 of 2",
        ),
        (
            {**LANDMARKS, "face_landmarks": {"frames": [[POINT]], "image_size": (480, 640)}},
            "'face_landmarks' holds points that form no face",
        ),
        ({**PIXELS, "bounding_box": [[]]}, "'bounding_box' holds no box in picture 1 of 1"),
        ({**PIXELS, "bounding_box": []}, "'bounding_box' holds no box"),
        ({**PIXELS, "bounding_box": "left"}, "'bounding_box' must be boxes with x, y, .* got str"),
        ({**PIXELS, "bounding_box": {"x": 1}}, "'bounding_box' must be boxes with x, y, width, h"),
        (
            {**PIXELS, "bounding_box": {**BOX, "x": 900}},
            "'bounding_box' must lie in the picture of 800 x 400 pixels, got x 900, y 50, width",
        ),
        ({"method": "fixed box", "width": 0.0}, "'width' and 'height' of the box must be above 0"),
        ({"method": "fixed box", "x": 1.0}, "'x' and 'y' of the box must be below 1, got 1 and"),
    ],
)
def test_errors_name_the_node(inputs, message):
    with pytest.raises(ValueError, match=f"^Locate Face: {message}"):
        locator(**inputs)
