"""Energies averaged over views: fixed within a step, the same alone and in a batch, with faces."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from zmagic.guidance import energies
from zmagic.guidance.conditions import Condition, region_at
from zmagic.guidance.energies import Landmarks
from zmagic.guidance.energy import RandomEnergy
from zmagic.guidance.faces.crops import Faces
from zmagic.guidance.faces.detections import Detection
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.faces.networks import LandmarkNetwork
from zmagic.guidance.pictures.views import ViewOptions, drawn_views
from zmagic.guidance.robust_views import RobustViews, robust

from ..pretended_device import on_device, waits
from .derivatives import gradient
from .energy_table import ENERGIES, face_identity
from .small_networks import VIEW

SIZE = (48, 40)
OPTIONS = ViewOptions(3, noise=0.1, blur=0.8, shift=0.05, flip=True)
MASK = torch.zeros(1, 24, 20)
MASK[:, 4:20, 3:18] = 1.0
# One of each kind: whole picture, crops of its own, face, places.
NAMES = ("text", "text with crops", "style", "identity", "landmarks", "segmentation", "reference")


def pictures(batch=1, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, *SIZE, generator=generator, dtype=torch.float64)


def begun(energy, step=0, seed=11):
    """The energy in a run, at a step."""
    energy = energy.begin_run()
    energy.draw_from(seed)
    energy.begin_step(step)
    return energy


def seen_through_views(name, options=OPTIONS, reference=None):
    inner = ENERGIES[name](pictures(seed=9) if reference is None else reference)
    return robust(Condition(name, inner), options)[0].energy


SMOOTH = ("text", "style", "landmarks", "segmentation", "reference")


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_those_of_one_function_within_a_step(name):
    """First and second derivatives against differences: the views stay as they are."""
    energy = begun(seen_through_views(name))
    generator = torch.Generator().manual_seed(5)
    image = 0.5 + 0.2 * torch.randn(1, 3, *SIZE, generator=generator, dtype=torch.float64)
    v = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    point, step = image.clone().requires_grad_(True), 1e-5
    with sdpa_kernel(SDPBackend.MATH):
        (g,) = torch.autograd.grad(energy(point).sum(), point, create_graph=True)
        (product,) = torch.autograd.grad((g * v).sum(), point)
        ahead, behind = (energy(image + sign * step * v) for sign in (1, -1))
        g_ahead, g_behind = (gradient(energy, image + sign * step * v) for sign in (1, -1))
    slope = (g.detach() * v).sum()
    torch.testing.assert_close((ahead - behind).sum() / (2 * step), slope, rtol=1e-4, atol=1e-9)
    expected = (g_ahead - g_behind) / (2 * step)
    assert (product - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_outside_a_region(name):
    energy, image = begun(seen_through_views(name)), pictures()
    mask = region_at(Condition(name, energy, region=MASK), image)
    g = gradient(energy, image, mask)
    assert g.any() and not g[(mask == 0.0).expand_as(g)].any()


@pytest.mark.parametrize("name", NAMES)
def test_views_are_those_of_the_seed_and_the_finished_picture_is_seen_as_it_is(name):
    energy, image = seen_through_views(name), pictures()
    first, again = begun(energy, 0, 11)(image), begun(energy, 4, 11)(image)
    other = begun(energy, 0, 12)(image)
    assert torch.equal(first, again) and not torch.equal(first, other)
    inner = ENERGIES[name](pictures(seed=9))
    plain = (begun(inner, None) if isinstance(inner, RandomEnergy) else inner)(image)
    assert not torch.equal(first, plain)
    assert torch.equal(begun(energy, None)(image), plain)
    assert energy.calls == 1 and begun(energy).calls == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_the_same_views_alone_and_in_a_batch(name):
    batch = pictures(2, seed=4)
    together = begun(seen_through_views(name, reference=pictures(1, seed=9)))(batch)
    each = [
        begun(seen_through_views(name, reference=pictures(1, seed=9)))(one)
        for one in batch.split(1)
    ]
    torch.testing.assert_close(together, torch.cat(each))


def test_the_face_is_located_once_in_the_picture_as_it_is():
    looks = []

    def detector(picture):
        looks.append(picture)
        return [Detection(torch.tensor([0.2, 0.2, 0.7, 0.8], dtype=torch.float64))]

    energy = RobustViews(face_identity(pictures(seed=9), FaceLocator(detector)), OPTIONS)
    energy, image = begun(energy), pictures()
    energy(image)
    energy(image + 0.1)
    assert len(looks) == 1 and torch.equal(looks[0], image[0].to(looks[0]))
    assert energy.face_looks == (1, 1)


def test_the_crop_of_a_face_moves_and_a_mirrored_face_has_its_points_in_a_mirror():
    image, options = pictures(), ViewOptions(1, shift=0.1)
    faces = Faces.from_boxes(torch.tensor([[0.2, 0.2, 0.7, 0.8]]))
    inner = face_identity(pictures(seed=9), FaceLocator(fixed=faces))
    (view,) = drawn_views(options, 1)
    x, y = view.shift
    assert 0.0 < max(abs(x), abs(y)) <= 0.1
    moved = faces.nudged(x, y)
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    torch.testing.assert_close(
        (moved.boxes - faces.boxes)[:, :2] / sides, torch.tensor([[x, y]]).double()
    )
    energy = RobustViews(inner, options)
    energy._views = [view]
    expected = inner.of_faces(image, None, faces, moved)
    torch.testing.assert_close(energy(image), expected)
    assert not torch.allclose(expected, inner(image))
    back = faces.mirrored().mirrored()
    torch.testing.assert_close(back.points, faces.points)
    points = faces.mirrored().points[0]
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    torch.testing.assert_close(faces.mirrored().boxes[0, 0], 1.0 - faces.boxes[0, 2])


@pytest.mark.parametrize("square", [True, False])
def test_landmarks_stay_where_they_are_in_the_picture(square):
    """A network that finds the bright spot of its crop, from which the picture is asked."""

    def brightest(crops):
        weights = crops.mean(1).clamp_min(0.0).flatten(1).pow(4)
        weights = weights / weights.sum(1, keepdim=True)
        size = crops.shape[-1]
        at = torch.arange(size, dtype=crops.dtype)
        at = at / size if square else (at + 0.5) / size
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([(weights * grid.flatten()).sum(1) for grid in (columns, rows)], 1)

    view = VIEW.__class__((64, 64), (0.0,), (1.0,))
    network = LandmarkNetwork(brightest, view, 1, 1.5 if square else 1.0, square, signed=False)
    faces = Faces.from_boxes(torch.tensor([[0.2, 0.25, 0.7, 0.85]]))
    rows = torch.linspace(0, 1, 96, dtype=torch.float64)[:, None]
    columns = torch.linspace(0, 1, 80, dtype=torch.float64)[None]
    spot = torch.exp(-((rows - 0.5) ** 2 + (columns - 0.45) ** 2) / 0.002)
    image = spot.expand(1, 3, -1, -1)
    seen = network.in_crop(image, faces)
    moved = network.in_crop(image, faces, faces.nudged(0.08, -0.06))
    torch.testing.assert_close(moved, seen, atol=2e-3, rtol=0.0)
    elsewhere = network.in_crop(image, faces.nudged(0.08, -0.06))
    assert (elsewhere - seen).abs().max() > 0.03
    energy = Landmarks(network, seen.detach(), FaceLocator(fixed=faces))
    energy = RobustViews(energy, ViewOptions(4, shift=0.08))
    assert begun(energy)(image) < 1e-5


def test_what_asks_for_places_is_not_moved_and_that_is_said():
    def made(name, options):
        condition = Condition(name, ENERGIES[name](pictures()))
        changed, said = robust(condition, options)
        return condition, changed, said

    _, changed, said = made("segmentation", OPTIONS)
    assert (changed.energy.options.shift, changed.energy.options.flip) == (0.0, False)
    assert said == ["segmentation is seen without shift and flip: it asks for something at places"]
    _, changed, said = made("landmarks", OPTIONS)
    assert (changed.energy.options.shift, changed.energy.options.flip) == (0.05, False)
    assert said == ["landmarks is seen without flip: it asks for something at places"]
    condition, changed, said = made("reference", ViewOptions(4, shift=0.1))
    assert changed is condition and len(said) == 1
    _, changed, said = made("output by cosine of maps", OPTIONS)
    assert changed.energy.options.shift == 0.0
    _, changed, said = made("text", ViewOptions(4, blur=1.0))
    assert changed.energy.options.count == 1 and not said
    again, said = robust(changed, OPTIONS)
    assert again is changed and said == ["text has views already, and keeps them"]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_energy_knows_is_passed_on(name):
    inner = ENERGIES[name](pictures())
    energy = robust(Condition(name, inner), OPTIONS)[0].energy
    for attribute, missing in (("goal", None), ("networks", ()), ("describes_places", False)):
        assert getattr(energy, attribute) == getattr(inner, attribute, missing)


@pytest.mark.parametrize("name", ["text", "identity"])
def test_views_wait_for_no_device_within_a_step(name):
    energy = begun(seen_through_views(name))
    image = on_device(pictures())
    with waits() as waited:
        for _ in range(2):
            waited.clear()
            point = image.clone().requires_grad_()
            torch.autograd.grad(energy(point).sum(), point)
    assert not waited


@pytest.mark.parametrize(
    "options",
    [{"count": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"shift": 0.6}, {"blur": -1}],
)
def test_options_outside_their_ranges_are_refused(options):
    with pytest.raises(ValueError, match="must lie in"):
        ViewOptions(**options)


def test_a_shift_is_by_whole_pixels_and_a_region_goes_along():
    (view,) = drawn_views(ViewOptions(1, shift=0.2, flip=True), 3)
    image = pictures()
    x, y = (round(s * side) for s, side in zip(view.shift, (SIZE[1], SIZE[0]), strict=True))
    assert x or y
    moved, mask = view.moved(image), view.moved(torch.ones_like(image[:, :1]), beyond="constant")
    inside = (mask > 0.0).expand_as(image)
    expected = image.roll((y, x), (-2, -1))
    expected = expected.flip(-1) if view.mirrored else expected
    assert torch.equal(moved[inside], expected[inside])
    assert inside.sum() == 3 * (SIZE[0] - abs(y)) * (SIZE[1] - abs(x))


def test_the_help_page_names_all_energies_of_places():
    page = Path(__file__).resolve().parents[2] / "web" / "docs" / "ZMagicRobustViews.md"
    (told,) = re.findall(r"\*\*Places\*\*: (.*)", page.read_text(encoding="utf-8"))
    of_places = [
        name
        for name in energies.__all__
        if getattr(getattr(energies, name), "describes_places", None) is True
    ]
    assert {"Sketch", "Seamless"} <= set(of_places)
    for name in of_places:
        assert re.sub("(?<=[a-z])(?=[A-Z])", " ", name) in told
