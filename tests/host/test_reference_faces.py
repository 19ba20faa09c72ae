"""References of face energies: some without a face, some whose face is somewhere else."""

import logging

import pytest
import skimage.data
import torch
from torch.nn import functional as F

from zmagic.guidance.faces.detector_networks import read_detector
from zmagic.guidance.faces.location import FaceLocator
from zmagic.host.demo_model import LAYOUT_FILE, MAN_FILE, WOMAN_FILE, face_in, load_photograph
from zmagic.host.demo_networks import demo_locator
from zmagic.nodes.demo_nodes import ZMagicLoadDemoNetworks
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity, ZMagicLandmarks

from .face_locations import face_location

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
FIXED = {"method": "fixed box", "reference_is": "framed like the picture"}


@pytest.fixture(scope="module")
def networks():
    with torch.inference_mode():
        return ZMagicLoadDemoNetworks.execute().args


@pytest.fixture(scope="module")
def detect(face_networks):
    return read_detector(face_networks / "fr_detect.onnx", 0.6)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(skimage.data.astronaut())[None].float() / 255.0


@pytest.fixture(scope="module")
def coffee() -> torch.Tensor:
    """A picture without a face, of the astronaut's size."""
    picture = torch.from_numpy(skimage.data.coffee())[None].float() / 255.0
    return F.interpolate(picture.movedim(-1, 1), (512, 512)).movedim(1, -1)


def told(caplog) -> list[str]:
    """What the pack itself has logged."""
    return [record.message for record in caplog.records if record.name.startswith("zmagic")]


def identity(networks, locator, reference, **inputs):
    with torch.inference_mode():
        return ZMagicFaceIdentity.execute(
            recognizer=networks[2],
            reference=reference,
            face_location=locator,
            **{**COMMON, **inputs},
        ).args


def landmarks(networks, locator, target):
    with torch.inference_mode():
        return ZMagicLandmarks.execute(
            landmark_network=networks[3],
            landmarks="",
            points="all",
            target_image=target,
            face_location=locator,
            **COMMON,
        ).args


def test_a_reference_without_a_face_is_left_out(networks, detect, astronaut, coffee, caplog):
    locator = FaceLocator(detect)
    with caplog.at_level(logging.WARNING):
        chain, crops = identity(networks, locator, torch.cat((astronaut, coffee, astronaut)))
    (alone,), (crop) = identity(networks, locator, astronaut)
    torch.testing.assert_close(chain[0].energy.reference, alone.energy.reference)
    torch.testing.assert_close(crops, crop.expand(2, -1, -1, -1))
    (message,) = [m for m in caplog.messages if "no face was found" in m]
    assert message.startswith("Face Identity Energy: no face was found in picture 2 of 3 at 'ref")


def test_an_image_whose_target_has_no_face_is_not_guided(
    networks, detect, astronaut, coffee, caplog
):
    locator = FaceLocator(detect)
    with caplog.at_level(logging.WARNING):
        (condition,), crops = landmarks(networks, locator, torch.cat((coffee, astronaut)))
    assert "no face was found in picture 1 of 2 at 'target_image'" in caplog.text
    assert crops[0].eq(0.5).all() and not crops[1].eq(0.5).all()
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    energies = condition.energy(image)
    energies.sum().backward()
    assert energies[0] == 0.0 < energies[1]
    assert not image.grad[0].any() and image.grad[1].any() and image.grad.isfinite().all()


@pytest.mark.parametrize("count", [1, 2])
def test_it_stops_if_no_reference_has_a_face(networks, detect, coffee, count):
    for run in (identity, landmarks):
        with pytest.raises(ValueError, match=r"^(Face Identity|Landmark) Energy: no face was foun"):
            run(networks, FaceLocator(detect), coffee.expand(count, -1, -1, -1))


def test_the_crop_that_the_recognizer_sees(networks, detect, astronaut):
    _, crop = identity(networks, FaceLocator(detect), astronaut)
    size = networks[2].size
    assert crop.shape == (1, size, size, 3)
    # Where the eyes are in it: nearer to the face in the photograph than to the whole photograph.
    face = F.interpolate(astronaut[:, 60:180, 165:285].movedim(-1, 1), (size, size))
    whole = F.interpolate(astronaut.movedim(-1, 1), (size, size), antialias=True, mode="bilinear")
    distances = [(crop.movedim(-1, 1) - each).square().mean() for each in (face, whole)]
    assert distances[0] < 0.5 * distances[1]


def test_a_face_outside_the_fixed_box_is_said(networks, astronaut, caplog):
    """The astronaut's face is at the top; the box is told to be at the lower right."""
    wrong = face_location(**FIXED, x=0.6, y=0.5)
    right = face_location(**FIXED, x=0.35, y=0.1, width=0.2, height=0.25)
    with caplog.at_level(logging.WARNING):
        identity(networks, right, astronaut)
        assert told(caplog) == []
        identity(networks, wrong, astronaut)
    assert "the face in the picture at 'reference' seems to be at another place" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        identity(networks, None, astronaut)  # taken for a portrait that is cropped to the face
    assert "seems to be at another place, or of another size" in caplog.text


@pytest.mark.parametrize("file", [WOMAN_FILE, MAN_FILE, LAYOUT_FILE], ids=lambda file: file.stem)
def test_nothing_is_said_of_faces_in_their_places(networks, file, caplog):
    portrait = load_photograph(file)
    # The face as large as the recognizer wants it: its box is 0.7 of such a crop's sides.
    left, top, right, bottom = (face_in(file).boxes[0] * 128).round().int().tolist()
    side = round((right - left) / 0.7)
    middle = (left + right) // 2
    cropped = portrait[:, max(0, top - side // 10) :, max(0, middle - side // 2) :]
    cropped = cropped[:, :side, :side]
    with caplog.at_level(logging.WARNING):
        identity(networks, demo_locator(networks[3]), portrait)
        landmarks(networks, None, cropped)
    assert told(caplog) == []


def test_hidden_colors_do_not_change_whose_face_it_is(networks):
    portrait = load_photograph(WOMAN_FILE)
    counts = torch.zeros(1, 128, 128)
    counts[:, 20:110, 30:100] = 1.0
    embeddings = []
    for hidden in (torch.zeros_like(portrait), torch.rand_like(portrait)):
        reference = torch.where(counts[..., None] > 0.0, portrait, hidden)
        for inputs in (
            {"reference": reference, "reference_mask": counts},
            {"reference": torch.cat((reference, counts[..., None]), -1)},
        ):
            (condition,), _ = identity(networks, None, **inputs)
            embeddings.append(condition.energy.reference)
    assert all(torch.equal(embeddings[0], each) for each in embeddings[1:])
