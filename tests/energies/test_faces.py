"""Faces and their crops, against scikit-image, OpenCV and the insightface library."""

import cv2
import numpy as np
import pytest
import skimage
import torch
from insightface.utils import face_align
from skimage.transform import SimilarityTransform
from torch.nn import functional as F

from zmagic.guidance.faces.crops import (
    ARCFACE_POINTS,
    Faces,
    aligned_crops,
    aligned_side,
    box_crops,
    similarity,
)
from zmagic.guidance.faces.points import POINT_SETS, five_points

TEMPLATE = np.array(ARCFACE_POINTS)

# The astronaut's eyes, nose and mouth corners in pixels, by MTCNN.
ASTRONAUT = np.array([[205.0, 102], [247, 104], [225, 129], [202, 139], [245, 142]])


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return skimage.data.astronaut()


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 255.0


def pixels(crop: torch.Tensor) -> np.ndarray:
    return crop.permute(1, 2, 0).numpy() * 255.0


def fractions(points: np.ndarray, picture: np.ndarray) -> torch.Tensor:
    """Pixels as OpenCV counts them, whole numbers at pixel centers, to fractions."""
    return torch.from_numpy((points + 0.5) / [picture.shape[1], picture.shape[0]])[None]


def faces_at(points: np.ndarray, picture: np.ndarray) -> Faces:
    return Faces.from_points(fractions(points, picture), picture.shape[1] / picture.shape[0])


def template_seen(scale: float, angle: float, center: tuple[float, float]) -> np.ndarray:
    """Five points whose aligned crop shows the picture turned, and scaled by ``scale``."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 56.0) @ turn.T / scale + center


# ---------------------------------------------------------------- transform


def test_similarity_is_umeyamas():
    points = torch.rand(6, 5, 2, dtype=torch.float64)
    points[5, :, 0] *= -1.0  # mirrored: no rotation fits, and none but a rotation may come out
    template = torch.tensor(ARCFACE_POINTS, dtype=torch.float64)
    for each, matrix in zip(points, similarity(points, template), strict=True):
        expected = SimilarityTransform.from_estimate(each.numpy(), TEMPLATE)
        np.testing.assert_allclose(matrix.numpy(), expected.params[:2], atol=1e-8)


def test_points_that_coincide_have_no_sensible_size():
    assert aligned_side(torch.full((1, 5, 2), 0.5), 1.0) > 1e6
    assert aligned_side(Faces.whole(1, 1.0).points, 1.0) == pytest.approx(1.0)


# ---------------------------------------------------------------- aligned crops


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.8])
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_alignment_is_the_librarys(photograph, scale, angle):
    points = template_seen(scale, angle, (222.0, 125.0))
    crop = pixels(aligned_crops(tensor(photograph), faces_at(points, photograph))[0])
    exact = face_align.norm_crop(photograph.astype(np.float32), points.astype(np.float32))
    rounded = face_align.norm_crop(photograph, points.astype(np.float32)).astype(float)
    # In gray levels of 255. Some versions of OpenCV round the sampling places to 1/32 pixel.
    assert np.abs(crop - exact).max() < 4.0 and np.abs(crop - exact).mean() < 0.3
    assert np.abs(crop - rounded).mean() < 0.6


def test_beyond_the_picture_it_is_black_as_in_the_library(photograph):
    points = template_seen(0.9, 0.2, (20.0, 490.0))
    crop = pixels(aligned_crops(tensor(photograph), faces_at(points, photograph))[0])
    exact = face_align.norm_crop(photograph.astype(np.float32), points.astype(np.float32))
    assert (exact == 0.0).mean() > 0.2
    assert np.abs(crop - exact).mean() < 0.3


@pytest.mark.parametrize("shrink", [2, 4])
def test_a_shrunken_face_does_not_alias(photograph, shrink):
    """Close to the library's crop of a picture that was shrunk properly before."""
    grain = np.random.default_rng(0).normal(0.0, 25.0, photograph.shape)
    picture = np.clip(photograph + grain, 0.0, 255.0).astype(np.float32)
    points = template_seen(1.0 / shrink, 0.1, (256.0, 256.0))
    crop = pixels(aligned_crops(tensor(picture), faces_at(points, picture))[0])
    small = cv2.resize(picture, (512 // shrink,) * 2, interpolation=cv2.INTER_AREA)
    smaller = ((points + 0.5) / shrink - 0.5).astype(np.float32)
    proper = face_align.norm_crop(small, smaller)
    naive = face_align.norm_crop(picture, points.astype(np.float32))
    error, aliased = (np.abs(x - proper).mean() for x in (crop, naive))
    assert error < 0.5 * aliased


def test_every_face_of_a_batch_is_filtered_by_its_own_scale(photograph):
    sizes = [template_seen(scale, 0.0, (222.0, 125.0)) for scale in (1.0, 0.25)]
    image = tensor(photograph)
    alone = [aligned_crops(image, faces_at(points, photograph)) for points in sizes]
    faces = Faces.stacked([faces_at(points, photograph) for points in sizes])
    together = aligned_crops(image.expand(2, -1, -1, -1), faces)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0.0)


def test_a_whole_picture_of_the_crops_size_is_the_crop():
    image = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    torch.testing.assert_close(aligned_crops(image, Faces.whole(2, 1.0)), image)
    wide = F.pad(image, (7, 7))
    torch.testing.assert_close(aligned_crops(wide, Faces.whole(1, 126 / 112)), image)


def test_faces_do_not_depend_on_the_resolution(photograph):
    faces = faces_at(ASTRONAUT, photograph)
    large = tensor(photograph)
    small = F.interpolate(large, scale_factor=0.5, mode="bilinear", antialias=True)
    first, second = (aligned_crops(image, faces) for image in (large, small))
    assert (first - second).abs().mean() < 0.02
    # A shift by a quarter of a pixel would be seen.
    shifted = Faces(faces.points + 0.25 / 256, faces.boxes)
    assert (first - aligned_crops(small, shifted)).abs().mean() > (first - second).abs().mean()


@pytest.mark.parametrize("scale", [0.05, 0.3])
def test_crops_are_differentiable_twice(scale):
    """A small face (enlarged) and a large one (filtered), by finite differences."""
    image = torch.rand(2, 3, 20, 16, dtype=torch.float64, requires_grad=True)
    points = (torch.tensor(ARCFACE_POINTS, dtype=torch.float64) - 56.0) / 112.0
    spread = points * torch.tensor((1.0, 16 / 20)) * (2.0 if scale > 0.1 else 0.5) + 0.5
    faces = Faces.from_points(torch.stack((spread, spread + 0.03)), 16 / 20)

    def aligned(x):
        return aligned_crops(x, faces, 8).square()

    def boxed(x):
        return box_crops(x, faces, 8)[0].square()

    for crops in (aligned, boxed):
        assert torch.autograd.gradcheck(crops, (image,), fast_mode=True)
        assert torch.autograd.gradgradcheck(crops, (image,), fast_mode=True)


def test_every_pixel_of_a_large_face_has_a_gradient():
    image = torch.rand(1, 3, 448, 448, requires_grad=True)
    weights = torch.rand(1, 3, 112, 112)
    (aligned_crops(image, Faces.whole(1, 1.0)) * weights).sum().backward()
    assert (image.grad[..., 8:-8, 8:-8].abs() > 0.0).all()


# ---------------------------------------------------------------- boxes


def test_square_crops_are_the_librarys_landmark_crops(photograph):
    x0, y0, x1, y1 = box = np.array([150.0, 60.0, 260.0, 195.0])  # pixels, as detectors count
    faces = Faces.from_boxes(fractions(box.reshape(2, 2), photograph).reshape(1, 4))
    crops, back = box_crops(tensor(photograph), faces, 192)
    scale = 192 / (max(x1 - x0, y1 - y0) * 1.5)
    expected, matrix = face_align.transform(
        photograph.astype(np.float32), ((x0 + x1) / 2, (y0 + y1) / 2), 192, scale, 0
    )
    assert np.abs(pixels(crops[0]) - expected).mean() < 0.3
    # The library's way back: (prediction + 1) * 192 / 2 is a pixel of the crop.
    prediction = np.array([[-0.4, 0.3]])
    inverse = cv2.invertAffineTransform(matrix)
    place = face_align.trans_points((prediction + 1) * 96, inverse)[0]
    found = back[0, :, :2] @ torch.tensor((prediction[0] + 1) / 2).float() + back[0, :, 2]
    np.testing.assert_allclose(found * 512 - 0.5, place, atol=1e-3)


def test_stretched_crops_are_resized_cutouts(photograph):
    cutout = photograph[64:192, 150:278]
    faces = Faces.from_boxes(torch.tensor([[150, 64, 278, 192]]) / 512)
    crops, back = box_crops(tensor(photograph), faces, 96, square=False)
    expected = cv2.resize(cutout.astype(np.float32), (96, 96), interpolation=cv2.INTER_LINEAR)
    assert np.abs(pixels(crops[0]) - expected)[1:-1, 1:-1].max() < 0.1
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = corners @ back[0, :, :2].T + back[0, :, 2]
    torch.testing.assert_close(found.flatten(), faces.boxes[0].float())


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.6])
def test_boxes_and_points_of_an_average_face_agree(aspect):
    faces = Faces.whole(1, aspect)
    width, height = (
        (faces.boxes[0, 2:] - faces.boxes[0, :2]) * torch.tensor([aspect, 1.0])
    ).tolist()
    assert 1.2 < height / width < 1.5
    again = Faces.from_boxes(faces.boxes)
    torch.testing.assert_close(again.points, faces.points)
    assert ((faces.points > 0.0) & (faces.points < 1.0)).all()


def test_the_box_turns_and_grows_with_the_points():
    upright = Faces.from_points(torch.tensor(ARCFACE_POINTS)[None] / 224 + 0.2, 1.0)
    larger = Faces.from_points(upright.points * 1.5, 1.0)
    torch.testing.assert_close(larger.boxes, upright.boxes * 1.5)
    middle = upright.points.mean(1, keepdim=True)
    turned = Faces.from_points(
        (upright.points - middle).flip(-1) * torch.tensor([-1, 1]) + middle, 1.0
    )
    size, turned_size = (f.boxes[0, 2:] - f.boxes[0, :2] for f in (upright, turned))
    torch.testing.assert_close(size, turned_size)


def test_faces_are_constants_of_their_own():
    with torch.inference_mode():
        faces = Faces.from_points(torch.rand(2, 5, 2), 1.0)
    assert not faces.points.is_inference() and not faces.boxes.is_inference()
    boxes = torch.rand(2, 4, dtype=torch.float64)
    before = Faces.from_boxes(boxes)
    boxes.zero_()
    assert before.boxes.all()


def test_batches():
    faces = Faces.from_boxes(torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.4, 0.2, 0.9, 0.8]]))
    assert len(faces) == 2 and torch.equal(faces[-1].boxes, faces.boxes[1:])
    assert torch.equal(Faces.stacked([faces[0], faces[1]]).points, faces.points)
    assert len(faces[0].expanded(3)) == 3
    with pytest.raises(ValueError, match="2 faces do not fit a batch of 3"):
        faces.expanded(3)
    with pytest.raises(IndexError):
        faces[2]
    with pytest.raises(ValueError, match=r"boxes of faces must be \[B, 4\], got \[1, 4\]"):
        Faces(faces.points, faces.boxes[:1])
    with pytest.raises(ValueError, match="points of faces must be finite"):
        Faces(faces.points * float("nan"), faces.boxes)


# ---------------------------------------------------------------- five points


@pytest.mark.parametrize("count", POINT_SETS)
def test_five_points_are_means_of_landmarks(count):
    landmarks = torch.rand(2, count, 2)
    result = five_points(landmarks)
    assert result.shape == (2, 5, 2)
    torch.testing.assert_close(five_points(landmarks + 1.0), result + 1.0)


def test_five_points_of_68():
    landmarks = torch.rand(1, 68, 2)
    eyes = [landmarks[0, list(eye)].mean(0) for eye in ((37, 38, 40, 41), (43, 44, 46, 47))]
    expected = torch.stack((*eyes, landmarks[0, 30], landmarks[0, 48], landmarks[0, 54]))
    torch.testing.assert_close(five_points(landmarks)[0], expected)


def test_unknown_landmarks_are_refused():
    with pytest.raises(ValueError, match=r"a known order \(5, 68, 106, 468, 478 points\), got 98"):
        five_points(torch.rand(1, 98, 2))
