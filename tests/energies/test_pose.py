"""Poses: where key points are, which of them count, and what does not matter to the energy."""

import pytest
import torch
from torch import Tensor, nn

from zmagic.guidance.energies import Pose
from zmagic.guidance.poses.layouts import chosen_points, from_openpose
from zmagic.guidance.poses.looking import people_in
from zmagic.guidance.poses.maps import points_of_maps, points_of_rows
from zmagic.guidance.poses.people import People, boxes_around

SIZE = (64, 48)  # height and width of the network's pictures


class Blobs(nn.Module):
    """Finds the red, the green and the blue spot: a heat map each, of every other pixel."""

    size, points = SIZE, 3

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return points_of_maps(crops[..., ::2, ::2], self.size)


def spots(points: Tensor, height: int = 160, width: int = 200) -> Tensor:
    """A picture ``[1, 3, H, W]`` with a soft spot of each color at ``points [3, 2]`` in pixels."""
    rows, columns = torch.meshgrid(
        torch.arange(height).double(), torch.arange(width).double(), indexing="ij"
    )
    distances = (rows - points[:, 1, None, None]) ** 2 + (columns - points[:, 0, None, None]) ** 2
    return (-distances / 32.0).exp()[None]


def gaussian(places: int, middle: float) -> Tensor:
    return (-((torch.arange(places).double() - middle) ** 2) / 8.0).exp()


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (0.04, 0.0), (300.0, -80.0)])
def test_a_peak_is_found_where_it_is_whatever_the_unit(unit, offset):
    """As MMPose counts: place i of w stands for pixel i * side / w; SDPose's ends meet."""
    x, y = 20.3, 40.6
    heat = unit * gaussian(64, y)[:, None] * gaussian(48, x) + offset
    points, scores = points_of_maps(heat[None, None], (256, 192))
    expected = torch.tensor(((x * 4.0 + 0.5) / 192, (y * 4.0 + 0.5) / 256)).double()
    torch.testing.assert_close(points[0, 0], expected, rtol=0.0, atol=2e-3)
    assert scores.item() == pytest.approx(unit + offset, abs=0.04 * unit)
    meeting, _ = points_of_maps(heat[None, None], (256, 192), ends_meet=True)
    expected = torch.tensor(((x * 191 / 47 + 0.5) / 192, (y * 255 / 63 + 0.5) / 256)).double()
    torch.testing.assert_close(meeting[0, 0], expected, rtol=0.0, atol=2e-3)
    rows, columns = (unit * gaussian(*each) + offset for each in ((384, 100.0), (512, 300.0)))
    (point,), (score,) = points_of_rows(rows[None, None], columns[None, None], (256, 192))
    expected = torch.tensor((50.5 / 192, 150.5 / 256)).double()
    torch.testing.assert_close(point[0], expected, rtol=0.0, atol=1e-3)
    assert score.item() == pytest.approx(unit + offset)


def test_a_peak_is_found_among_much_that_is_nothing():
    """As large as SDPose's maps: a soft-argmax without sharpening would be drawn to the middle."""
    heat = torch.zeros(1, 1, 256, 192).double()
    heat[0, 0] = gaussian(256, 20.0)[:, None] * gaussian(192, 170.0)
    points, _ = points_of_maps(heat, (256, 192))
    expected = torch.tensor((170.5 / 192, 20.5 / 256)).double()
    torch.testing.assert_close(points[0, 0], expected, rtol=0.0, atol=2e-3)


WHERE = torch.tensor(((60.0, 40.0), (90.0, 60.0), (70.0, 110.0))).double()


def people(points: Tensor, height: int = 160, width: int = 200) -> People:
    fractions = (points + 0.5) / points.new_tensor((width, height))
    places, counts = fractions[None, None], torch.ones(1, 1, 3)
    return People(places, counts, boxes_around(places, counts, width / height), width / height)


def test_the_energy_is_in_squares_of_the_persons_size():
    """The longest side of the box around the points is 70 pixels, and each spot is 7 beside."""
    energy = Pose(Blobs(), people(WHERE))
    assert energy(spots(WHERE)).item() < 1e-4
    beside = energy(spots(WHERE + torch.tensor((7.0, 0.0))))
    assert beside.item() == pytest.approx(0.01, rel=0.1)
    twice = Pose(Blobs(), people(2 * WHERE, 320, 400))
    other = twice(spots(2 * WHERE + torch.tensor((14.0, 0.0)), 320, 400))
    assert other.item() == pytest.approx(0.01, rel=0.1)


def test_a_person_may_be_anywhere():
    """Picture and pose moved by whole pixels: the same energy, and the gradient moves along."""
    other, step = WHERE + 8.0 * torch.rand_like(WHERE), torch.tensor((33.0, -13.0))
    slopes = []
    for moved in (torch.zeros(2), step):
        image = spots(other + moved).requires_grad_()
        energy = Pose(Blobs(), people(WHERE + moved))(image)
        slopes.append((energy.item(), *torch.autograd.grad(energy.sum(), image)))
    (here, slope), (there, moved) = slopes
    assert here > 1e-4 and there == pytest.approx(here, rel=1e-6)
    torch.testing.assert_close(moved.roll((13, -33), (-2, -1)), slope, rtol=1e-6, atol=1e-9)


def test_points_that_do_not_count_ask_for_nothing():
    wanted = people(WHERE)
    hidden = People(wanted.points, torch.tensor([[[1.0, 0.0, 1.0]]]), wanted.boxes, wanted.aspect)
    elsewhere = WHERE.clone()
    elsewhere[1] += 15.0
    image = spots(elsewhere).requires_grad_()
    assert Pose(Blobs(), hidden)(image).item() < 1e-4 < Pose(Blobs(), wanted)(image).item()


def test_each_person_is_looked_at_in_its_own_place():
    """Two people: each one's points are compared with its own, not with the other's."""
    left, right = WHERE * 0.5, WHERE * 0.5 + torch.tensor((110.0, 30.0))
    both = [people(each) for each in (left, right)]
    wanted = People(
        *(torch.cat([getattr(p, n) for p in both], 1) for n in ("points", "counts", "boxes")),
        both[0].aspect,
    )
    energy = Pose(Blobs(), wanted)
    assert energy(spots(left) + spots(right)).item() < 1e-3
    moved = spots(left) + spots(right + torch.tensor((5.0, 0.0)))
    alone = Pose(Blobs(), both[1])(spots(right + torch.tensor((5.0, 0.0))))
    assert energy(moved).item() == pytest.approx(alone.item() / 2, rel=0.1)


def test_a_pose_fills_a_picture_of_another_shape_and_what_is_cut_off_does_not_count():
    wanted = people(torch.tensor(((10.0, 80.0), (100.0, 80.0), (190.0, 80.0))).double())
    square = wanted.fitted(1.0)
    assert square.counts.tolist() == [[[0.0, 1.0, 0.0]]]
    torch.testing.assert_close(
        square.points[0, 0, 1, 0], (wanted.points[0, 0, 1, 0] - 0.5) * 1.25 + 0.5
    )
    torch.testing.assert_close(square.points[..., 1], wanted.points[..., 1])


def test_with_a_region_points_inside_count():
    image = spots(WHERE + torch.tensor(((0.0, 0.0), (7.0, 0.0), (0.0, 0.0))))
    energy, region = Pose(Blobs(), people(WHERE)), torch.zeros(1, 1, 160, 200).double()
    region[..., 50:70, 80:110] = 1.0
    assert energy(image, region).item() == pytest.approx(0.01, rel=0.15)  # the second alone
    assert energy(image, 1.0 - region).item() < 1e-4


def test_a_run_that_asks_for_nothing_says_so():
    energy, nowhere = Pose(Blobs(), people(WHERE)).begin_run(), torch.zeros(1, 1, 160, 200)
    assert energy.warnings() == []
    assert energy(spots(WHERE), nowhere).item() == 0.0
    assert "no key point of the pose lies in the picture" in energy.warnings()[0]


def test_people_of_a_photograph_are_found_as_they_are_looked_at_later():
    image = spots(WHERE) + 0.05
    found, scores = people_in(Blobs(), image, None, 0.3)
    pixels = found.points[0, 0] * torch.tensor((200.0, 160.0)).double() - 0.5
    torch.testing.assert_close(pixels, WHERE, rtol=0.0, atol=1.0)
    assert Pose(Blobs(), found)(image).item() == 0.0
    assert found.counts.all() and (scores > 0.8).all()
    faint = image * torch.tensor((1.0, 0.2, 1.0)).view(3, 1, 1)
    assert people_in(Blobs(), faint, None, 0.3)[0].counts.tolist() == [[[1.0, 0.0, 1.0]]]


def numbered(count: int, first: int) -> Tensor:
    numbers = torch.arange(first, first + count).double()
    return torch.stack((numbers, numbers, torch.ones(count).double()), dim=1)


def test_pose_data_are_brought_into_the_order_of_the_network():
    """Names of both orders, as they are published."""
    openpose = "nose neck rsho relb rwri lsho lelb lwri rhip rkne rank lhip lkne lank reye leye "
    openpose = f"{openpose}rear lear".split()
    coco = "nose leye reye lear rear lsho rsho lelb relb lwri rwri lhip rhip lkne rkne lank rank"
    body = from_openpose({"pose_keypoints_2d": numbered(18, 0)}, 17)
    assert [openpose[int(x)] for x in body[:, 0]] == coco.split()
    halpe = from_openpose(
        {"pose_keypoints_2d": numbered(18, 0), "foot_keypoints_2d": numbered(6, 100)}, 26
    )
    torch.testing.assert_close(halpe[:17], body)
    assert halpe[17:, 2].tolist() == [0.0, 1.0, 0.0, *[1.0] * 6]
    assert halpe[20:, 0].tolist() == [100.0, 103.0, 101.0, 104.0, 102.0, 105.0]
    whole = from_openpose({"face_keypoints_2d": numbered(70, 200)}, 133)
    assert whole[23:91, 0].tolist() == list(range(200, 268)) and not whole[:23, 2].any()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_hand_belongs_to_the_nearer_wrist(swapped):
    """ComfyUI's node and others call opposite hands the left one."""
    body, hands = numbered(18, 0), {}
    for name, wrist in (("left", 7), ("right", 4)):
        there = "left right".replace(name, "").strip() if swapped else name
        hands[f"hand_{there}_keypoints_2d"] = numbered(21, wrist)
    whole = from_openpose({"pose_keypoints_2d": body, **hands}, 133)
    assert whole[91, 0] == 7.0 and whole[112, 0] == 4.0


def test_groups_of_points_need_a_network_that_has_them():
    assert chosen_points("body", 17) == list(range(17))
    assert chosen_points("hands", 133) == list(range(91, 133))
    assert chosen_points("all", 21) == list(range(21))
    with pytest.raises(ValueError, match="points 'body and hands' needs a network of 133 key"):
        chosen_points("body and hands", 17)
    with pytest.raises(ValueError, match="pose data need a network of 17, 26, 133 key points"):
        from_openpose({}, 21)
