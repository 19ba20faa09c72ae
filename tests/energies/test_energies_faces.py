"""Energies of faces on real networks and photographs, against the libraries they come from."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.io
import torch
from torch import Tensor
from torch.nn import functional as F

from zmagic.guidance.energies import FaceIdentity, Landmarks
from zmagic.guidance.energies.face_identity import mean_embedding
from zmagic.guidance.energies.landmarks import POINT_GROUPS, chosen_points
from zmagic.guidance.faces.crops import Faces, aligned_crops
from zmagic.guidance.faces.location import Detection, FaceLocator
from zmagic.guidance.faces.networks import FaceRecognizer, LandmarkNetwork
from zmagic.guidance.faces.points import POINT_SETS, five_points
from zmagic.guidance.networks import load_onnx
from zmagic.guidance.pictures.preprocessing import Preprocessing

from . import small_networks
from .derivatives import gradient

# Boxes of faces in fractions, as UltraFace finds them: one astronaut, four people of a group.
ASTRONAUT_BOX = (0.351, 0.1247, 0.5209, 0.3388)
GROUP_BOXES = (
    (0.039, 0.2851, 0.1322, 0.4453),
    (0.2123, 0.1617, 0.2887, 0.312),
    (0.3597, 0.2941, 0.4501, 0.4685),
    (0.5834, 0.3833, 0.6594, 0.535),
)


def rgb(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255.0


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    return rgb(skimage.data.astronaut())


@pytest.fixture(scope="module")
def group() -> Tensor:
    """A photograph of six people that comes with the insightface package."""
    package = importlib.util.find_spec("insightface").submodule_search_locations[0]
    return rgb(skimage.io.imread(Path(package) / "data" / "images" / "t1.jpg"))


@pytest.fixture(scope="module")
def embed(face_networks):
    return load_onnx(face_networks / "fr_feature.onnx")


@pytest.fixture(scope="module")
def recognizer(embed) -> FaceRecognizer:
    return FaceRecognizer(embed, scaled(127.0, 128.0))


@pytest.fixture(scope="module")
def landmark_network(face_networks) -> LandmarkNetwork:
    network = load_onnx(face_networks / "fr_landmark.onnx")
    gray = Preprocessing((64, 64), (0.0,), (256.0 / 255.0,), "gray")
    return LandmarkNetwork(network, gray, 68, margin=1.0, square=False, signed=False)


def scaled(mean: float, std: float, channels: str = "rgb") -> Preprocessing:
    return Preprocessing((112, 112), (mean / 255.0,), (std / 255.0,), channels)


@pytest.fixture(scope="module")
def places(landmark_network, astronaut, group) -> dict[str, list[Faces]]:
    """Return where the faces are, their five points found by the landmark network."""

    def faces(image, box):
        box = torch.tensor([box], dtype=torch.float64)
        points = landmark_network.landmarks(image, Faces.from_boxes(box))
        return Faces(five_points(points), box)

    return {
        "astronaut": [faces(astronaut, ASTRONAUT_BOX)],
        "group": [faces(group, box) for box in GROUP_BOXES],
    }


@pytest.fixture(scope="module")
def crops(places, astronaut, group) -> Tensor:
    """Five different people, ``[5, 3, 112, 112]``."""
    faces = [aligned_crops(astronaut, place) for place in places["astronaut"]]
    return torch.cat([*faces, *(aligned_crops(group, place) for place in places["group"])])


@pytest.fixture(scope="module")
def reference(recognizer, astronaut, places) -> Tensor:
    return mean_embedding(recognizer, astronaut, places["astronaut"][0])


def other_lights(crops: Tensor) -> list[Tensor]:
    """The same people in other photographs: black and white, and in warm light."""
    warm = crops * torch.tensor([1.15, 1.0, 0.75]).view(1, 3, 1, 1)
    return [crops.mean(1, keepdim=True).expand_as(crops), warm.clamp(0.0, 1.0)]


def cosines(embeddings: Tensor, others: Tensor) -> Tensor:
    return F.normalize(embeddings) @ F.normalize(others).T


# ---------------------------------------------------------------- the networks' own results


def test_cosines_are_those_of_onnxruntime(recognizer, face_networks, crops):
    session = pytest.importorskip("onnxruntime").InferenceSession(
        str(face_networks / "fr_feature.onnx"), providers=["CPUExecutionProvider"]
    )

    def original(crops: Tensor) -> Tensor:
        prepared = ((crops * 255.0 - 127.0) / 128.0).numpy()
        return torch.from_numpy(
            np.concatenate([session.run(None, {"input": x[None]})[0] for x in prepared])
        )

    mirrored = crops.flip(-1)
    ours = cosines(recognizer(crops), recognizer(mirrored))
    assert (ours - cosines(original(crops), original(mirrored))).abs().max() < 1e-4
    strangers = ours[~torch.eye(len(crops), dtype=torch.bool)]
    # Measured: the same person 0.95 and more, strangers 0.34 and less.
    assert ours.diagonal().min() > 0.8 and strangers.max() < 0.5


def test_a_file_for_one_picture_takes_batches(recognizer, embed, crops):
    assert not embed.batched
    alone = torch.cat([recognizer(crop[None]) for crop in crops[:2]])
    assert torch.equal(recognizer(crops[:2]), alone)


def test_insightface_computes_the_same_embedding_so_the_order_is_rgb(embed, face_networks, crops):
    """Its library is given BGR as OpenCV reads it, and exchanges red and blue."""
    library = library_recognizer(face_networks)
    pixels = (crops[1].clamp(0.0, 1.0) * 255.0).round()
    bgr = pixels.flip(0).permute(1, 2, 0).byte().numpy()
    theirs = torch.from_numpy(library.get_feat(bgr))
    mean_and_std = (library.input_mean, library.input_std)
    assert mean_and_std == (127.5, 127.5)
    ours = FaceRecognizer(embed, scaled(*mean_and_std))(pixels[None] / 255.0)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0.0)
    exchanged = FaceRecognizer(embed, scaled(*mean_and_std, "bgr"))(pixels[None] / 255.0)
    assert (exchanged - theirs).abs().max() > 0.05


def test_people_stay_themselves_in_other_light_more_in_rgb_than_in_bgr(embed, crops):
    def same(channels: str) -> Tensor:
        network = FaceRecognizer(embed, scaled(127.0, 128.0, channels))
        own = network(crops)
        return torch.stack([cosines(own, network(x)).diagonal() for x in other_lights(crops)])

    assert same("rgb").mean() > same("bgr").mean() + 0.005


def library_recognizer(face_networks: Path):
    model_zoo = pytest.importorskip("insightface.model_zoo")
    return model_zoo.arcface_onnx.ArcFaceONNX(str(face_networks / "fr_feature.onnx"))


def test_landmarks_lie_where_the_features_are(landmark_network, places, astronaut, group):
    """Their order from the top, their sides, and both eyes inside the contour, in every face."""
    images = [astronaut] + [group] * 4
    for image, place in zip(images, places["astronaut"] + places["group"], strict=True):
        points = landmark_network.landmarks(image, place)[0]
        middle = {g: points[chosen_points(g, 68)].mean(0) for g in POINT_GROUPS}
        heights = [middle[g][1].item() for g in ("brows", "eyes", "nose", "mouth")]
        assert heights == sorted(heights)
        left, right = points[36:42].mean(0), points[42:48].mean(0)
        assert points[0, 0] < left[0] < middle["nose"][0] < right[0] < points[16, 0]
        x0, y0, x1, y1 = place.boxes[0].float()
        assert x0 < left[0] and right[0] < x1 and y0 < left[1] and points[8, 1] < y1 + 0.02


def test_five_points_belong_to_their_groups():
    for points in (68, 106):
        chosen = POINT_SETS[points]
        eyes, mouth = ({*chosen_points(g, points)} for g in ("eyes", "mouth"))
        assert {*chosen.left_eye, *chosen.right_eye} <= eyes
        assert {*chosen.nose} <= {*chosen_points("nose", points)}
        assert {*chosen.left_mouth, *chosen.right_mouth} <= mouth


@pytest.mark.parametrize("points", [68, 106])
def test_groups_are_the_whole_face_without_overlap(points):
    parts = [chosen_points(g, points) for g in ("contour", "brows", "nose", "eyes", "mouth")]
    assert sorted(i for part in parts for i in part) == chosen_points("all", points)
    both = chosen_points("eyes and mouth", points)
    assert both == sorted([*chosen_points("eyes", points), *chosen_points("mouth", points)])


# ---------------------------------------------------------------- what both energies look at


@pytest.fixture(scope="module")
def small(astronaut) -> Tensor:
    """The astronaut's head at 96 x 80 pixels, and another face in the second image."""
    head = F.interpolate(
        astronaut[..., 30:210, 150:300], size=(96, 80), antialias=True, mode="bilinear"
    )
    return torch.cat((head, head.flip(-1) * 0.8 + 0.1))


WHOLE = FaceLocator()  # the picture is the aligned face
SMALL_BOX = ((0.19, 0.19, 0.77, 0.8),)


@pytest.fixture(scope="module")
def quick() -> FaceRecognizer:
    """A small network of the ArcFace kind, in single precision as the landmark network is."""
    recognizer = small_networks.recognizer()
    recognizer.network.float()
    return recognizer


@pytest.fixture(params=["identity", "landmarks"])
def make(request, quick, landmark_network):
    """Makes an energy with a reference that is none of its pictures'."""

    def energy(locator=WHOLE):
        generator = torch.Generator().manual_seed(3)
        if request.param == "identity":
            return FaceIdentity(quick, torch.randn(16, generator=generator), locator)
        return Landmarks(landmark_network, torch.rand(1, 68, 2, generator=generator), locator)

    return energy


def test_a_region_without_a_locator_is_the_portrait(make, small):
    """Its bounding box' center square is what the network sees, as a picture of its own."""
    region = torch.zeros(1, 1, 96, 80)
    region[..., 20:72, 12:64] = 1.0
    energy = make()
    torch.testing.assert_close(
        energy(small, region), energy(small[..., 20:72, 12:64]), rtol=0.1, atol=1e-3
    )
    assert (energy(small, region) - energy(small)).abs().min() > 1e-3


def test_a_region_scales_the_gradient_of_a_face_whose_place_is_given(make, small):
    energy = make(FaceLocator(fixed=Faces.from_boxes(torch.tensor(SMALL_BOX))))
    region = torch.rand(2, 1, 96, 80)
    torch.testing.assert_close(energy(small, region), energy(small))
    torch.testing.assert_close(
        gradient(energy, small, region), gradient(energy, small) * region, rtol=1e-4, atol=1e-8
    )


# ---------------------------------------------------------------- location


def test_a_run_looks_for_the_face_once_in_a_step(make, small):
    looks = []

    def detect(picture: Tensor) -> list[Detection]:
        looks.append(picture)
        return [Detection(torch.tensor(SMALL_BOX[0], dtype=torch.float64))]

    energy = make(locator=FaceLocator(detect=detect, every=2))
    runs = energy.begin_run(), energy.begin_run()
    for run in runs:
        looks.clear()
        for step in range(4):
            run.begin_step(step)
            for shift in (0.0, 0.01):
                run(small[:1] + shift)
        assert len(looks) == 2
    looks.clear()
    energy.begin_step(0)
    energy(small[:1])
    energy(small[:1])
    assert len(looks) == 2  # outside a run it looks at every call


def test_two_people_in_one_picture(recognizer, group, places):
    """Each region holds one face; the energy of each sees its own person and moves nothing else."""
    picture = F.interpolate(group, scale_factor=0.5, mode="bilinear", antialias=True)
    boxes = torch.tensor(GROUP_BOXES, dtype=torch.float64)
    points = torch.cat([place.points for place in places["group"]])

    def detect(_: Tensor) -> list[Detection]:
        return [Detection(box, 1.0, p) for box, p in zip(boxes, points, strict=True)]

    height, width = picture.shape[-2:]
    left = torch.zeros(1, 1, height, width)
    left[..., : width // 6] = 1.0  # the first person
    right = torch.zeros(1, 1, height, width)
    right[..., width // 2 :] = 1.0  # the fourth one
    for person, own, other in ((0, left, right), (3, right, left)):
        reference = mean_embedding(recognizer, group, places["group"][person])
        energy = FaceIdentity(recognizer, reference, FaceLocator(detect=detect)).begin_run()
        energy.begin_step(0)
        assert energy(picture, own).item() < 0.1
        slope = gradient(energy, picture, own)
        assert slope.abs().max() > 0.0 and not (slope * (1.0 - own)).any()
        stranger = FaceIdentity(recognizer, reference, FaceLocator(detect=detect))
        assert stranger(picture, other).item() > 0.6


def test_what_counts_is_the_face_and_not_where_it_is(make, small):
    """The picture moved by whole pixels with the face's place: the same value."""
    box = torch.tensor(SMALL_BOX, dtype=torch.float64)
    wide = F.pad(small, (60, 60, 60, 60))
    frame = box.new_tensor((200.0, 216.0)).repeat(2)
    places = [
        Faces.from_boxes((box * box.new_tensor((80.0, 96.0)).repeat(2) + 60.0 + shift) / frame)
        for shift in (0.0, 12.0)
    ]
    here, there = (make(locator=FaceLocator(fixed=place)) for place in places)
    torch.testing.assert_close(here(wide), there(wide.roll((12, 12), (2, 3))), rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- identity


def test_identity_is_zero_for_the_reference_and_one_less_the_cosine(
    recognizer, reference, astronaut, places, crops
):
    energy = FaceIdentity(recognizer, reference, FaceLocator(fixed=places["astronaut"][0]))
    assert energy(astronaut).abs().item() < 1e-5
    filling = FaceIdentity(recognizer, 3.0 * reference, WHOLE)  # its length does not matter
    expected = 1.0 - F.cosine_similarity(recognizer(crops), reference[None])
    torch.testing.assert_close(filling(crops), expected, atol=1e-4, rtol=0.0)


def test_references_are_averaged_as_unit_vectors(recognizer, crops):
    whole = Faces.whole(len(crops), 1.0)
    alone = [mean_embedding(recognizer, crop[None], whole[0]) for crop in crops]
    expected = F.normalize(torch.stack(alone).sum(0), dim=0)
    together = mean_embedding(recognizer, crops, whole)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0.0)
    # A photograph in strong contrast, whose embedding is longer, weighs no more than others.
    assert (torch.stack(alone) @ together).std() < 0.2


def test_descent_reaches_the_person_as_insightface_itself_judges(
    recognizer, reference, group, places, face_networks
):
    """Steps on the pixels of a stranger; the library crops, prepares and compares by itself."""
    library = library_recognizer(face_networks)
    library.input_mean, library.input_std = 127.0, 128.0  # those of this network
    place = places["group"][2]
    picture = group[..., 180:520, 400:640].clone()
    frame = place.points.new_tensor((1280.0, 886.0))
    place = Faces(
        (place.points * frame - place.points.new_tensor((400.0, 180.0)))
        / place.points.new_tensor((240.0, 340.0)),
        (place.boxes * frame.repeat(2) - place.points.new_tensor((400.0, 180.0)).repeat(2))
        / place.points.new_tensor((240.0, 340.0)).repeat(2),
    )
    energy = FaceIdentity(recognizer, reference, FaceLocator(fixed=place)).begin_run()

    def judged(image: Tensor) -> float:
        bgr = (image[0].clamp(0.0, 1.0) * 255.0).round().flip(0).permute(1, 2, 0).byte().numpy()
        kps = (place.points[0] * place.points.new_tensor((240.0, 340.0)) - 0.5).numpy()
        face = pytest.importorskip("insightface.app.common").Face(kps=kps.astype(np.float32))
        embedding = torch.from_numpy(library.get(bgr, face))
        return 1.0 - F.cosine_similarity(embedding, reference, dim=0).item()

    image = picture.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=0.01)
    before = energy(picture).item()
    assert abs(judged(picture) - before) < 0.02
    for step in range(8):
        energy.begin_step(step)
        optimizer.zero_grad()
        energy(image).sum().backward()
        optimizer.step()
    energy.begin_step(None)
    after = energy(image.detach()).item()
    assert before > 0.7 and after < 0.4
    assert abs(judged(image.detach()) - after) < 0.05
    assert (image - picture).square().mean().sqrt() < 0.1


def test_identity_refuses(recognizer, small):
    with pytest.raises(ValueError, match=r"reference must be .* \[1, 2, 512\]"):
        FaceIdentity(recognizer, torch.rand(1, 2, 512), WHOLE)
    with pytest.raises(
        ValueError, match="2 embeddings as reference, expected 1 or the batch size 3"
    ):
        FaceIdentity(recognizer, torch.randn(2, 512), WHOLE)(small[:1].expand(3, -1, -1, -1))


# ---------------------------------------------------------------- landmarks


def test_landmarks_are_the_mean_square_in_sides_of_the_crop(landmark_network, small):
    faces = Faces.from_boxes(torch.tensor(SMALL_BOX))
    found = landmark_network.in_crop(small, faces)
    locator = FaceLocator(fixed=faces)
    assert Landmarks(landmark_network, found, locator)(small).abs().max() < 1e-9
    shifted = found + torch.tensor([0.03, -0.04])
    torch.testing.assert_close(
        Landmarks(landmark_network, shifted, locator)(small), torch.full((2,), 0.0025)
    )
    mouth = found.clone()
    mouth[:, 48:, 1] += 0.1
    for group, expected in (("mouth", 0.01), ("eyes", 0.0), ("all", 0.01 * 20 / 68)):
        value = Landmarks(landmark_network, mouth, locator, group)(small)
        torch.testing.assert_close(value, torch.full((2,), expected), atol=1e-7, rtol=1e-4)


def test_descent_on_pixels_brings_the_landmarks_to_the_target(landmark_network, small):
    """A stranger's mouth; the target is where the astronaut's is when it is mirrored."""
    faces = Faces.from_boxes(torch.tensor(SMALL_BOX))
    target = landmark_network.in_crop(small[:1], faces).detach()
    target[:, 48:] += torch.tensor([0.0, 0.03])
    energy = Landmarks(landmark_network, target, FaceLocator(fixed=faces), "mouth")
    image = small[:1].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=0.01)
    before = energy(image).item()
    for _ in range(25):
        optimizer.zero_grad()
        energy(image).sum().backward()
        optimizer.step()
    assert energy(image).item() < 0.1 * before


def test_landmarks_refuse(landmark_network, small):
    with pytest.raises(ValueError, match="holds 2 faces, expected 1 or the batch size 3"):
        Landmarks(landmark_network, torch.rand(2, 68, 2), WHOLE)(small[:1].expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match=r"target must be points \[R, 68, 2\], got \[68, 2\]"):
        Landmarks(landmark_network, torch.rand(68, 2), WHOLE)
    with pytest.raises(ValueError, match="points must be one of all, eyes, .* got ears"):
        Landmarks(landmark_network, torch.rand(1, 68, 2), WHOLE, "ears")
    with pytest.raises(ValueError, match="'mouth' needs a network of 68 or 106 points.* finds 98"):
        chosen_points("mouth", 98)
    assert chosen_points("all", 98) == list(range(98))
