"""Where the face is: on real photographs, with a real detector, through the steps of a run."""

import logging
from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
import skimage
import torch
from torch.nn import functional as F

from zmagic.guidance.faces.crops import Faces, aligned_crops
from zmagic.guidance.faces.crowds import Crowd
from zmagic.guidance.faces.detections import CHOICES, IN_THE_REGION, Detection
from zmagic.guidance.faces.detector_networks import read_detector
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.faces.networks import LandmarkNetwork
from zmagic.guidance.faces.points import FivePoints
from zmagic.guidance.faces.tracker import FaceTracker
from zmagic.guidance.networks import load_onnx
from zmagic.guidance.pictures.preprocessing import Preprocessing

PICTURES = Path(insightface.__file__).parent / "data" / "images"

# The faces in the group photograph by the centers of their boxes, left to right, in fractions;
# read off the picture.
GROUP = [(0.085, 0.365), (0.25, 0.237), (0.405, 0.381), (0.62, 0.46), (0.75, 0.145), (0.92, 0.375)]

# The astronaut's face: eyes, nose and mouth corners in pixels of 512, by MTCNN.
ASTRONAUT = torch.tensor([[205.0, 102], [247, 104], [225, 129], [202, 139], [245, 142]]) / 512


@pytest.fixture(scope="module")
def detect(face_networks):
    return read_detector(face_networks / "fr_detect.onnx", 0.6)


@pytest.fixture(scope="module")
def find_points(face_networks):
    module = load_onnx(face_networks / "fr_landmark.onnx")
    prepared = Preprocessing((64, 64), (0.0,), (256 / 255,), "gray")
    landmark_network = LandmarkNetwork(module, prepared, 68, margin=1.0, square=False, signed=False)
    return FivePoints(landmark_network)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255.0


@pytest.fixture(scope="module")
def group() -> torch.Tensor:
    """Return a photograph of six people."""
    picture = cv2.imread(str(PICTURES / "t1.jpg"))[..., ::-1]
    picture = cv2.resize(picture, (640, 443), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255.0


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.rand(1, 3, 512, 512)


def centers(faces: Faces) -> torch.Tensor:
    return (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2.0


def same(first: Faces, second: Faces) -> bool:
    return torch.equal(first.points, second.points) and torch.equal(first.boxes, second.boxes)


def part(picture: torch.Tensor, left: float, top: float, right: float, bottom: float):
    """A region ``[1, 1, H, W]`` of a picture that is 1 between edges in fractions."""
    height, width = picture.shape[-2:]
    region = torch.zeros(1, 1, height, width)
    rows = slice(round(top * height), round(bottom * height))
    region[..., rows, round(left * width) : round(right * width)] = 1.0
    return region


class Counting:
    """A detector that counts the pictures it looks at."""

    def __init__(self, detect):
        self.detect, self.calls = detect, 0

    def __call__(self, picture):
        self.calls += 1
        return self.detect(picture)


# ---------------------------------------------------------------- in pictures


def test_a_face_is_found_where_it_is(detect, astronaut):
    (faces,) = FaceLocator(detect).in_picture(astronaut)
    assert (faces.boxes[0, :2] < ASTRONAUT).all() and (faces.boxes[0, 2:] > ASTRONAUT).all()
    torch.testing.assert_close(faces.points[0].float(), ASTRONAUT, atol=0.03, rtol=0.0)


def test_landmarks_bring_the_points_of_a_box_to_their_places(detect, find_points, astronaut):
    rough, fine = (
        FaceLocator(detect, points=points).in_picture(astronaut)[0]
        for points in (None, find_points)
    )
    between_eyes = (ASTRONAUT[1] - ASTRONAUT[0]).norm()
    errors = [
        (faces.points[0] - ASTRONAUT).norm(dim=1).mean() / between_eyes for faces in (rough, fine)
    ]
    assert errors[1] < 0.1 and errors[1] < errors[0]
    assert torch.equal(rough.boxes, fine.boxes)


def test_location_does_not_depend_on_the_resolution_or_the_shape(detect, astronaut):
    (whole,) = FaceLocator(detect).in_picture(astronaut)
    small = F.interpolate(astronaut, scale_factor=0.25, mode="bilinear", antialias=True)
    (at_128,) = FaceLocator(detect).in_picture(small)
    torch.testing.assert_close(at_128.boxes, whole.boxes, atol=0.02, rtol=0.0)
    (narrow,) = FaceLocator(detect).in_picture(astronaut[..., 128:320])
    expected = (whole.boxes * 512 - torch.tensor([128, 0, 128, 0])) / torch.tensor([192, 512] * 2)
    torch.testing.assert_close(narrow.boxes, expected, atol=0.03, rtol=0.0)


def test_nothing_is_found_in_noise(detect, noise, astronaut):
    pictures = torch.cat((noise, astronaut, torch.full_like(noise, 0.5)))
    found = FaceLocator(detect).in_picture(pictures)
    assert [faces is not None for faces in found] == [False, True, False]


def test_without_a_detector_a_reference_is_an_aligned_face(astronaut):
    fixed = Faces.from_boxes(torch.tensor([[0.1, 0.1, 0.2, 0.2]]))
    for locator in (FaceLocator(), FaceLocator(fixed=fixed)):
        (faces,) = locator.in_picture(astronaut)
        assert same(faces, Faces.whole(1, 1.0))


@pytest.mark.parametrize("index", range(6))
def test_a_region_chooses_a_person(detect, group, index):
    x, y = GROUP[index]
    region = part(group, x - 0.05, y - 0.12, x + 0.05, y + 0.12)
    expected = torch.tensor([GROUP[index]], dtype=torch.float64)
    (faces,) = FaceLocator(detect).in_picture(group, region)
    torch.testing.assert_close(centers(faces), expected, atol=0.03, rtol=0.0)
    # The same during a run, even if the mask is soft and of another size.
    soft = F.interpolate(region, size=(111, 160), mode="bilinear", antialias=True)
    tracked = FaceTracker(FaceLocator(detect))(group, soft)
    torch.testing.assert_close(centers(tracked), expected, atol=0.03, rtol=0.0)


@pytest.mark.parametrize(
    ("choice", "index"), [("leftmost", 0), ("rightmost", 5), ("most central", 3)]
)
def test_choice_between_six(detect, group, choice, index):
    (faces,) = FaceLocator(detect, choice=choice).in_picture(group)
    expected = torch.tensor([GROUP[index]], dtype=torch.float64)
    torch.testing.assert_close(centers(faces), expected, atol=0.03, rtol=0.0)


@pytest.mark.parametrize("index", range(6))
def test_the_region_chooses_the_face_that_lies_most_in_it(detect, group, index):
    """Its center need not, and neighbors may be in it as well; before there is one, nobody is."""
    everybody = Faces.from_boxes(torch.stack([each.box for each in detect(group[0])]))
    away = (centers(everybody) - torch.tensor(GROUP[index])).norm(dim=1)
    expected = everybody[int(away.argmin())].boxes
    (left, _, right, _), y = expected[0].tolist(), GROUP[index][1]
    start = 0.4 * left + 0.6 * right  # behind the center
    region = part(group, start, max(0.0, y - 0.15), right + 0.04, y + 0.15)
    locator = FaceLocator(detect, choice=IN_THE_REGION)
    (faces,) = locator.in_picture(group, region)
    assert torch.equal(faces.boxes, expected)
    placed = FaceTracker(FaceLocator(fixed=Crowd([everybody], 640 / 443)))(group, region)
    assert torch.equal(placed.boxes, expected)
    nobody = part(group, 0.0, 0.9, 1.0, 1.0)
    assert locator.in_picture(group, nobody) == [None]


def test_the_largest_face(detect, group):
    (faces,) = FaceLocator(detect).in_picture(group)
    largest = max(detect(group[0]), key=lambda each: (each.box[2:] - each.box[:2]).prod())
    assert torch.equal(faces.boxes[0], largest.box)


def test_the_most_certain_face_is_one_of_them(detect, group):
    (faces,) = FaceLocator(detect, choice="most certain").in_picture(group)
    best = max(detect(group[0]), key=lambda each: each.score)
    assert torch.equal(faces.boxes[0], best.box)


# ---------------------------------------------------------------- through a run


def test_before_a_face_is_found_it_is_assumed_as_in_the_reference(detect, noise, astronaut):
    (layout,) = FaceLocator(detect).in_picture(astronaut)
    assert same(FaceTracker(FaceLocator(detect), layout)(noise), layout)
    # Without a reference's layout, and if asked for, in the center.
    assert same(FaceTracker(FaceLocator(detect))(noise), Faces.whole(1, 1.0))
    centered = FaceTracker(FaceLocator(detect, fallback="center"), layout)
    assert same(centered(noise), Faces.whole(1, 1.0))


def test_before_a_face_is_found_in_a_region_it_is_assumed_there(detect, noise, astronaut):
    (layout,) = FaceLocator(detect).in_picture(astronaut)
    away = part(noise, 0.5, 0.5, 1.0, 0.75)
    assumed = FaceTracker(FaceLocator(detect), layout)(noise, away)
    expected = Faces.filling(torch.tensor([[0.5, 0.5, 1.0, 0.75]]), 1.0)
    torch.testing.assert_close(assumed.points, expected.points)
    around = part(noise, 0.2, 0.0, 0.8, 0.6)  # the reference's face lies in it
    assert same(FaceTracker(FaceLocator(detect), layout)(noise, around), layout)


def test_a_face_that_appears_is_followed_and_not_forgotten(detect, noise, astronaut):
    tracker = FaceTracker(FaceLocator(detect, every=1))
    tracker.begin_step(0)
    assert same(tracker(noise), Faces.whole(1, 1.0))
    tracker.begin_step(1)
    first = tracker(astronaut)
    assert (centers(first) - ASTRONAUT.mean(0)).abs().max() < 0.03
    tracker.begin_step(2)
    moved = tracker(astronaut.roll(51, -1))
    torch.testing.assert_close(centers(moved)[0, 0], centers(first)[0, 0] + 0.1, atol=0.01, rtol=0)
    tracker.begin_step(3)
    assert same(tracker(noise), moved)


def test_each_image_of_a_batch_has_its_own_location(detect, noise, astronaut):
    tracker = FaceTracker(FaceLocator(detect))
    tracker.begin_step(0)
    faces = tracker(torch.cat((astronaut, noise, astronaut.flip(-1))))
    assert (centers(faces)[0] - ASTRONAUT.mean(0)).abs().max() < 0.03
    assert same(faces[1], Faces.whole(1, 1.0))
    assert abs(centers(faces)[0, 0] + centers(faces)[2, 0] - 1.0) < 0.03
    crops = aligned_crops(torch.cat((astronaut, noise, astronaut)), faces)
    assert crops.shape == (3, 3, 112, 112)


def test_regions_of_a_batch(detect, group):
    regions = torch.cat([part(group, x - 0.05, y - 0.1, x + 0.05, y + 0.1) for x, y in GROUP[1:3]])
    faces = FaceTracker(FaceLocator(detect))(group.expand(2, -1, -1, -1), regions)
    torch.testing.assert_close(
        centers(faces), torch.tensor(GROUP[1:3], dtype=torch.float64), atol=0.03, rtol=0.0
    )


def test_the_location_is_fixed_during_a_step(detect, astronaut, noise):
    """A step evaluates its energies at several points; only the first one is looked at."""
    counting = Counting(detect)
    tracker = FaceTracker(FaceLocator(counting, every=1))
    tracker.begin_step(0)
    first = tracker(astronaut)
    assert same(tracker(astronaut.roll(51, -1)), first) and same(tracker(noise), first)
    assert counting.calls == 1


def test_it_is_looked_for_every_few_steps(detect, astronaut):
    counting = Counting(detect)
    tracker = FaceTracker(FaceLocator(counting, every=3))
    calls = []
    for step in range(8):
        tracker.begin_step(step)
        tracker(astronaut)
        calls.append(counting.calls)
    assert calls == [1, 1, 1, 2, 2, 2, 3, 3]
    tracker.begin_step(None)  # the finished image is always looked at
    tracker(astronaut)
    assert counting.calls == 4


def test_an_image_without_a_face_is_looked_at_in_every_step(detect, astronaut, noise):
    counting = Counting(detect)
    tracker = FaceTracker(FaceLocator(counting, every=5))
    for step in range(3):
        tracker.begin_step(step)
        tracker(torch.cat((astronaut, noise)))
    assert counting.calls == 2 + 1 + 1


def test_runs_do_not_share_state(detect, astronaut, noise):
    locator = FaceLocator(detect)
    FaceTracker(locator)(astronaut)
    assert same(FaceTracker(locator)(noise), Faces.whole(1, 1.0))


def test_locations_have_no_gradient_and_leave_the_image_alone(detect, astronaut):
    image = astronaut.clone().requires_grad_(True)
    faces = FaceTracker(FaceLocator(detect))(image)
    assert not faces.points.requires_grad and torch.equal(image, astronaut)
    aligned_crops(image, faces).square().sum().backward()
    assert image.grad.abs().sum() > 0.0


# ---------------------------------------------------------------- fixed places


def test_fixed_faces(astronaut):
    one = Faces.from_boxes(torch.tensor([[0.1, 0.1, 0.4, 0.5]]))
    tracker = FaceTracker(FaceLocator(fixed=one))
    assert same(tracker(astronaut.expand(2, -1, -1, -1)), one.expanded(2))
    two = one.expanded(2)
    assert same(FaceTracker(FaceLocator(fixed=two))(astronaut.expand(2, -1, -1, -1)), two)
    with pytest.raises(ValueError, match="^the location holds 2 faces, .* size 3"):
        FaceTracker(FaceLocator(fixed=two))(astronaut.expand(3, -1, -1, -1))


def test_the_whole_picture_or_region(astronaut):
    tall = astronaut[..., :256]
    assert same(FaceTracker(FaceLocator())(tall), Faces.whole(1, 0.5))
    region = part(tall, 0.25, 0.5, 0.75, 1.0)
    expected = Faces.filling(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), 0.5)
    assert same(FaceTracker(FaceLocator())(tall, region), expected)


# ---------------------------------------------------------------- points near a fixed place


def near_the_astronaut(shift: float = 0.0, scale: float = 1.0) -> Faces:
    """The face's box, moved to the right and enlarged by shares of its sides."""
    box = Faces.from_points(ASTRONAUT[None], 1.0).boxes
    sides = box[:, 2:] - box[:, :2]
    middle = (box[:, :2] + box[:, 2:]) / 2.0 + sides * torch.tensor((shift, 0.0))
    return Faces.from_boxes(torch.cat((middle - scale * sides / 2, middle + scale * sides / 2), 1))


def misplaced(faces: Faces) -> float:
    """Mean distance of the points from the astronaut's, in distances of the eyes."""
    distance = (faces.points[0] - ASTRONAUT).norm(dim=1).mean()
    return float(distance / (ASTRONAUT[1] - ASTRONAUT[0]).norm())


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.1, 1.0), (-0.1, 1.15), (0.05, 0.85)])
def test_landmarks_find_the_face_near_a_fixed_place(find_points, astronaut, shift, scale):
    place = near_the_astronaut(shift, scale)
    tracker = FaceTracker(FaceLocator(fixed=place, points=find_points))
    found = tracker(astronaut)
    assert misplaced(found) < min(0.12, misplaced(place))
    assert same(found, Faces.from_points(found.points, 1.0))  # the box follows


def test_a_reference_is_cropped_or_framed_like_the_picture(find_points, astronaut):
    place = near_the_astronaut(0.1)
    (framed,) = FaceLocator(fixed=place, fixed_in_reference=True).in_picture(astronaut)
    assert same(framed, place)
    options = {"fixed": place, "points": find_points}
    (framed,) = FaceLocator(**options, fixed_in_reference=True).in_picture(astronaut)
    assert misplaced(framed) < 0.12
    left, top, side = 165, 40, 120  # roughly cropped to the face
    crop = astronaut[..., top : top + side, left : left + side]
    (cropped,) = FaceLocator(**options).in_picture(crop)
    offset = torch.tensor((left, top))
    back = Faces.from_points((cropped.points * side + offset) / 512, 1.0)
    assert misplaced(back) < 0.12
    with pytest.raises(ValueError, match="the location holds 2 faces, expected 1 or"):
        pair = Faces.stacked([place, place])
        FaceLocator(fixed=pair, fixed_in_reference=True).in_picture(astronaut.expand(3, -1, -1, -1))


@pytest.mark.parametrize("seed", range(4))
def test_in_noise_the_face_stays_near_the_place(find_points, seed):
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))
    place = near_the_astronaut()
    found = FaceTracker(FaceLocator(fixed=place, points=find_points))(noise)
    assert (centers(found) > place.boxes[:, :2]).all() and (
        centers(found) < place.boxes[:, 2:]
    ).all()
    change = (found.boxes[:, 2:] - found.boxes[:, :2]) / (place.boxes[:, 2:] - place.boxes[:, :2])
    assert change.max() < 2.0 and change.min() > 0.5


@pytest.mark.parametrize(
    "moved",
    [
        lambda points: points + 0.3,  # another face
        lambda points: 0.5 + 0.3 * (points - 0.5),  # much smaller
        lambda points: torch.full_like(points, 0.5),  # no face at all
        lambda points: points * float("nan"),
        lambda points: points + 0.05,  # never at rest
    ],
)
def test_points_that_are_not_the_face_at_the_place_are_not_believed(astronaut, moved):
    place = Faces.from_boxes(torch.tensor([[0.3, 0.3, 0.7, 0.8]]))
    locator = FaceLocator(fixed=place, points=lambda image, faces: moved(faces.points))
    assert same(FaceTracker(locator)(astronaut), place)


def test_a_face_near_a_place_is_followed_and_not_forgotten(find_points, astronaut):
    looks = []

    def counted(image, faces):
        looks.append(len(image))
        return find_points(image, faces)

    tracker = FaceTracker(FaceLocator(fixed=near_the_astronaut(), points=counted, every=2))
    tracker.begin_step(0)
    first = tracker(astronaut)
    count = len(looks)
    tracker.begin_step(1)
    assert same(tracker(astronaut.roll(10, -1)), first) and len(looks) == count
    tracker.begin_step(2)
    moved = tracker(astronaut.roll(10, -1))
    assert len(looks) > count
    torch.testing.assert_close(
        centers(moved)[0, 0], centers(first)[0, 0] + 10 / 512, atol=0.006, rtol=0.0
    )


def test_a_failing_landmark_network_does_not_end_the_sampling(astronaut, caplog):
    def broken(image, faces):
        raise RuntimeError("no such kernel")

    place = near_the_astronaut()
    with caplog.at_level(logging.WARNING):
        assert same(FaceTracker(FaceLocator(fixed=place, points=broken))(astronaut), place)
    assert "the landmark network failed (RuntimeError: no such kernel)" in caplog.text


# ---------------------------------------------------------------- what goes wrong


def test_a_failing_detector_does_not_end_the_sampling(astronaut, caplog):
    def broken(picture):
        raise RuntimeError("no such kernel")

    tracker = FaceTracker(FaceLocator(broken, every=1))
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracker.begin_step(step)
            assert same(tracker(astronaut), Faces.whole(1, 1.0))
    assert [r.message for r in caplog.records if "no such kernel" in r.message] == [
        "Z-Magic: the face detector failed (RuntimeError: no such kernel); "
        "guiding where the face was last"
    ]
    with pytest.raises(RuntimeError, match="no such kernel"):  # outside of sampling it is reported
        FaceLocator(broken).in_picture(astronaut)


def test_an_interrupt_is_not_swallowed(astronaut):
    class Interrupt(BaseException):
        pass

    def interrupted(picture):
        raise Interrupt

    with pytest.raises(Interrupt):
        FaceTracker(FaceLocator(interrupted))(astronaut)


@pytest.mark.parametrize(
    ("box", "points"),
    [
        ([0.3, 0.3, 0.6, 0.7], torch.full((5, 2), 0.5)),  # all at one place
        ([0.3, 0.3, 0.6, 0.7], torch.full((5, 2), float("nan"))),
        (
            [0.3, 0.3, 0.6, 0.7],
            torch.tensor([[0.6, 0.5], [0.4, 0.5], [0.5, 0.5], [0.6, 0.6], [0.4, 0.6]]),
        ),
        ([0.3, 0.3, 0.3, 0.7], None),  # no area
        ([0.3, 0.3, float("inf"), 0.7], None),
    ],
)
def test_senseless_detections_give_sound_crops(astronaut, box, points):
    detection = Detection(torch.tensor(box), 0.9, points)
    image = astronaut.clone().requires_grad_(True)
    faces = FaceTracker(FaceLocator(lambda picture: [detection]))(image)
    crops = aligned_crops(image, faces)
    crops.square().sum().backward()
    assert crops.isfinite().all() and image.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be >= 1, got 0"),
        ({"choice": "oldest"}, f"choice must be one of {', '.join(CHOICES)}, got oldest"),
        ({"fallback": "none"}, "fallback must be one of reference, center, got none"),
        ({"detect": list, "fixed": Faces.whole(1, 1.0)}, "either detected or at a fixed place"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        FaceLocator(**options)


def test_a_file_that_is_no_detector_is_refused(face_networks):
    with pytest.raises(ValueError, match=r"fr_feature.onnx is no face detector: .* \[1, 512\]"):
        read_detector(face_networks / "fr_feature.onnx", 0.5)
