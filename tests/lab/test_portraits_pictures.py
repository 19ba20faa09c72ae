"""How rendered portraits become pictures: smoothed light, development, masks, meshes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import xyz2rgb

from zmagic.lab.training.portraits.draws import BACKDROPS, draw_identity, draw_sitting
from zmagic.lab.training.portraits.meshes import Mesh, smooth_noise
from zmagic.lab.training.portraits.palette import BACKGROUND
from zmagic.lab.training.portraits.photograph import KNEE, backdrop, develop, exposure
from zmagic.lab.training.portraits.rendering import _majority
from zmagic.lab.training.portraits.scene import CLASS, Camera
from zmagic.lab.training.portraits.smoothing import DEPTH_STEP, LIGHT_LIMIT, smooth
from zmagic.lab.training.portraits.subdivision import catmull_clark, split_quads
from zmagic.lab.training.portraits.surfaces import cut, shell, sphere, tube, tubes

SIDE = 32
PIXEL = 0.0015  # m of a picture element at 128 pixels
SURFACES = ("skin", "lips", "brows", "hair", "clothing", "beard", "glasses", "hat")


class Traced:
    """A traced picture of a flat surface that faces the camera, to be changed by a test."""

    def __init__(self, label: str = "skin", side: int = SIDE):
        rng = np.random.default_rng(0)
        self.albedo = rng.uniform(0.05, 0.9, (side, side, 3))
        self.normal = np.broadcast_to([0.0, -1.0, 0.0], (side, side, 3)).copy()
        self.depth = np.full((side, side), 1.6)
        self.alpha = np.ones((side, side))
        self.labels = np.full((side, side), CLASS[label], np.uint8)
        self.light = np.ones((side, side, 3))

    def smoothed(self) -> np.ndarray:
        """The light after smoothing [h, w, 3]."""
        color = self.light * self.albedo * self.alpha[..., None]
        beauty = np.concatenate([color, self.alpha[..., None]], axis=2)
        features = np.concatenate([self.albedo, self.normal, self.depth[..., None]], axis=2)
        result = smooth(beauty, features, self.labels, PIXEL)
        return result / np.maximum(self.albedo * self.alpha[..., None], 1e-9)


# ---------------------------------------------------------------- smoothing


def test_constant_light_stays_constant():
    """Whatever shape, color, class and transparency the surfaces have."""
    traced, rng = Traced(), np.random.default_rng(1)
    traced.labels = rng.integers(0, len(CLASS), (SIDE, SIDE), dtype=np.uint8)
    traced.normal += rng.normal(0.0, 0.3, traced.normal.shape)
    traced.depth += rng.normal(0.0, 0.01, traced.depth.shape)
    traced.alpha = rng.uniform(0.6, 1.0, traced.alpha.shape)
    traced.light *= [0.4, 1.1, 2.0]
    np.testing.assert_allclose(traced.smoothed(), traced.light, rtol=1e-4)


@pytest.mark.parametrize("between", ["class", "depth", "normal", "nothing there"])
def test_light_does_not_leak(between):
    traced, half = Traced(), SIDE // 2
    traced.light[:, half:] = 3.0
    if between == "class":
        traced.labels[:, half:] = CLASS["clothing"]
    elif between == "depth":
        traced.depth[:, half:] += 5.0 * DEPTH_STEP
    elif between == "normal":
        traced.normal[:, half:] = [1.0, 0.0, 0.0]
    else:
        traced.alpha[:, half:] = 0.0
    there = traced.alpha > 0.0
    np.testing.assert_allclose(traced.smoothed()[there], traced.light[there], rtol=1e-4)


def test_light_does_not_go_around_the_edges_of_the_picture():
    traced = Traced("clothing", side=64)
    traced.light[:, 32:] = 3.0
    np.testing.assert_allclose(traced.smoothed()[:, :8], 1.0, rtol=1e-4)
    np.testing.assert_allclose(traced.smoothed()[:, -8:], 3.0, rtol=1e-4)


@pytest.mark.parametrize("label", ["lips", "brows", "beard"])
def test_skin_shares_its_light_with_what_grows_on_it(label):
    traced, half = Traced(), SIDE // 2
    traced.light[:, half:] = 3.0
    traced.labels[:, half:] = CLASS[label]
    light = traced.smoothed()
    assert light[8:-8, half - 1].min() > 1.2 and light[8:-8, half].max() < 2.8


@pytest.mark.parametrize("label", SURFACES)
def test_noise_is_removed_and_energy_kept(label):
    traced = Traced(label, side=64)
    traced.light = np.random.default_rng(2).uniform(0.2, 1.8, traced.light.shape)
    light = traced.smoothed()
    assert traced.light.min() <= light.min() and light.max() <= traced.light.max()
    assert light.mean() == pytest.approx(traced.light.mean(), rel=0.02)
    kept = light.std() / traced.light.std()
    assert kept < (0.6 if label in ("hair", "glasses") else 0.2)


def test_eyes_stay_sharp():
    traced = Traced("eyes")
    traced.light = np.random.default_rng(3).uniform(0.2, 1.8, traced.light.shape)
    assert traced.smoothed().std() > 0.7 * traced.light.std()


def test_red_light_spreads_farthest_in_skin_and_all_alike_in_cloth():
    def spread(label):
        traced = Traced(label, side=48)
        traced.light[:] = 0.01
        traced.light[24, 24] = LIGHT_LIMIT
        row = traced.smoothed()[24].sum(0)
        return traced.smoothed()[24, 24] / row  # the less stays, the farther it went

    red, green, blue = spread("skin")
    assert red < green < blue
    assert np.ptp(spread("clothing")) < 1e-5


def test_single_bright_paths_are_cut():
    traced = Traced("clothing")
    traced.light[16, 16] = 1000.0
    assert traced.smoothed().max() < LIGHT_LIMIT


def test_what_is_transparent_stays_so():
    traced = Traced()
    traced.alpha[:, :10] = 0.0
    color = np.zeros((SIDE, SIDE, 4))
    features = np.concatenate([traced.albedo, traced.normal, traced.depth[..., None]], axis=2)
    assert (smooth(color, features, traced.labels, PIXEL) == 0.0).all()


# ---------------------------------------------------------------- development, background


def test_development_is_monotone_and_in_range():
    light = np.concatenate([[-1.0, 0.0], np.geomspace(1e-5, 50.0, 4000)])
    values = develop(light)
    assert values.dtype == np.uint8
    assert (np.diff(values.astype(int)) >= 0).all()
    assert values[0] == values[1] == 0 and values[-1] == 255
    below, above = develop(np.array([KNEE - 1e-6, KNEE + 1e-6])).astype(int)
    assert abs(above - below) <= 1
    assert len(set(develop(np.linspace(KNEE, 1.5, 100)))) > 20  # highlights are not clipped


def test_below_the_knee_development_is_srgb():
    """The oracle is scikit-image's: it goes to XYZ and back."""
    to_xyz = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
              [0.019334, 0.119193, 0.950227]]  # fmt: skip
    light = np.random.default_rng(4).uniform(0.0, KNEE, (50, 50, 3))
    expected = xyz2rgb(light @ np.transpose(to_xyz)) * 255.0
    assert np.abs(develop(light) - expected).max() < 0.52


def test_dark_skin_is_exposed_longer():
    people = [draw_identity(1, number, ("gender",), ()) for number in range(60)]
    people.sort(key=lambda person: np.mean(person.skin))
    exposures = [exposure(person) for person in people]
    assert (np.diff(exposures) <= 0.0).all()
    reflected = [exposure(p) * np.mean(p.skin) for p in people]
    assert reflected[0] < reflected[-1]  # dark skin stays dark


def test_backgrounds_have_the_color_that_captions_name():
    person, kinds = draw_identity(1, 0, ("gender",), ()), set()
    for picture in range(60):
        sitting = draw_sitting(1, person, picture)
        colors = backdrop(64, sitting)
        assert colors.shape == (64, 64, 3) and 0.0 <= colors.min() <= colors.max() <= 1.0
        named = np.array(BACKGROUND[sitting.background_color])
        assert np.abs(np.log(colors.mean((0, 1)) / named)).max() < 0.5
        assert (backdrop(64, sitting) == colors).all()
        kinds.add(sitting.backdrop)
    assert kinds == set(BACKDROPS)


# ---------------------------------------------------------------- mask, camera


def test_the_most_frequent_class_wins_and_the_smaller_number_a_tie():
    votes = np.array([[[5, 5, 2], [7, 3, 9]], [[4, 4, 4], [2, 6, 6]]])
    assert _majority(votes).tolist() == [[5, 3], [4, 6]]
    assert _majority(np.array([[[9, 1, 1, 9]]])).tolist() == [[1]]
    assert _majority(votes).dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(CLASS) - 1), min_size=9, max_size=9), st.randoms())
def test_the_order_of_votes_plays_no_part(votes, random):
    shuffled = random.sample(votes, len(votes))
    first, second = (_majority(np.array(v)[None, None]) for v in (votes, shuffled))
    assert first == second and votes.count(first[0, 0]) == max(map(votes.count, votes))


def test_the_camera_puts_the_portraits_left_on_the_right_of_the_picture():
    camera = Camera(np.array([0.3, -1.5, 0.1]), np.array([0.0, 0.06, 0.0]), 13.0)
    (middle,) = camera.project(camera.target[None])
    assert middle == pytest.approx(0.5)
    left, up = camera.target + [0.01, 0.0, 0.0], camera.target + [0.0, 0.0, 0.01]
    (x, _), (_, y) = camera.project(left[None])[0], camera.project(up[None])[0]
    assert x > 0.5 > y
    edge = camera.target + [0.0, 0.0, camera.frame_height() / 2.0]
    assert camera.project(edge[None])[0, 1] == pytest.approx(0.0, abs=0.03)


# ---------------------------------------------------------------- meshes


CUBE = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
CUBE_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [side * side, 3] of a flat sheet of side 1, and its quads."""
    steps = np.linspace(0.0, 1.0, side)
    x, y = np.meshgrid(steps, steps, indexing="ij")
    number = np.arange(side * side).reshape(side, side)
    corners = (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:])
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(side * side)], axis=1)
    return vertices, np.stack(corners, axis=-1).reshape(-1, 4)


def area(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2.0)


def test_catmull_clark_of_a_cube_is_the_published_one():
    step, quads = catmull_clark(len(CUBE), CUBE_QUADS)
    new = step @ CUBE
    assert len(quads) == 24 and len(new) == 8 + 12 + 6
    np.testing.assert_allclose(new[:8], CUBE * 5.0 / 9.0)  # (Q + 2 R) / 3 at three edges
    np.testing.assert_allclose(np.sort(np.abs(new[8:20]), axis=1), [[0.0, 0.75, 0.75]] * 12)
    np.testing.assert_allclose(np.sort(np.abs(new[20:]), axis=1), [[0.0, 0.0, 1.0]] * 6)


def test_subdivision_keeps_a_sheet_and_its_rim():
    vertices, quads = grid(6)
    step, finer = catmull_clark(len(vertices), quads)
    new = step @ vertices
    np.testing.assert_allclose(np.asarray(step.sum(1)).ravel(), 1.0)
    assert np.abs(new[:, 2]).max() == 0.0 and new.min() >= 0.0 and new.max() <= 1.0
    x, y = vertices[:, 0], vertices[:, 1]
    rim = (x == 0.0) & (y > 0.0) & (y < 1.0)
    assert rim.sum() == 4 and (new[: len(vertices)][rim, 0] == 0.0).all()
    sheet = Mesh(new, split_quads(finer))
    assert 0.95 < area(sheet) <= 1.0  # the four corners are rounded off
    assert (sheet.normals[:, 2] > 0.99).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(-1.0, 1.0))
def test_a_mesh_is_cut_exactly(edge, slope):
    vertices, quads = grid(7)
    mesh = Mesh(vertices, split_quads(quads))
    field = edge - vertices[:, 0] + 0.02 * slope * (vertices[:, 1] - 0.5)
    part, (values,) = cut(mesh, field, 3.0 * vertices[:, :2] + 1.0)
    other, _ = cut(mesh, -field)
    assert area(part) == pytest.approx(edge, abs=1e-6)
    assert area(part) + area(other) == pytest.approx(1.0)
    np.testing.assert_allclose(values, 3.0 * part.vertices[:, :2] + 1.0)
    a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > -1e-12).all()  # no triangle is turned over


def test_nothing_is_left_of_a_mesh_outside():
    vertices, quads = grid(3)
    mesh = Mesh(vertices, split_quads(quads))
    left = shell(mesh, np.full(len(vertices), -1.0), np.ones((len(vertices), 3)))
    assert len(left.mesh.faces) == len(left.color) == len(left.normals) == 0
    whole = shell(mesh, np.full(len(vertices), 1.0), np.ones((len(vertices), 3)))
    assert area(whole.mesh) == pytest.approx(1.0)


def test_spheres_and_tubes_have_their_sizes():
    ball = sphere(40, 32)
    assert area(ball) == pytest.approx(4.0 * np.pi, rel=0.01)
    off_the_poles = np.abs(ball.vertices[:, 1]) < 0.999
    assert (np.einsum("nk,nk->n", ball.normals, ball.vertices)[off_the_poles] > 0.99).all()
    angle = np.linspace(0.0, 2.0 * np.pi, 60, endpoint=False)
    ring = np.stack([np.cos(angle), 0.0 * angle, np.sin(angle)], axis=1)
    torus = tube(ring, 0.05, closed=True, sides=24)
    assert area(torus) == pytest.approx(4.0 * np.pi**2 * 0.05, rel=0.01)
    paths = np.stack([np.linspace([0.0, k, 0.0], [2.0, k, 0.0], 5) for k in range(3)])
    axes = [0.0, 0.0, 0.1], [0.0, 0.05, 0.0]
    across, up = (np.broadcast_to(axis, paths.shape) for axis in axes)
    locks, normals = tubes(paths, across, up, 48)
    assert area(locks) == pytest.approx(3 * 2.0 * 0.4844, rel=0.01)  # around an ellipse of .1, .05
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0)
    assert (np.abs(np.einsum("nk,nk->n", normals, locks.normals)) > 0.99).mean() > 0.9


def test_noise_has_unit_variance_and_its_size():
    """The figures are over many seeds: a single field is a sum of a few waves."""
    places = np.random.default_rng(5).uniform(-0.1, 0.1, (400, 3))
    fields = np.array([smooth_noise(places, 0.03, seed) for seed in range(200)])
    assert fields.std() == pytest.approx(1.0, abs=0.05) and abs(fields.mean()) < 0.05
    near = np.array([smooth_noise(places + [0.001, 0.0, 0.0], 0.03, seed) for seed in range(200)])
    assert np.abs(near - fields).std() < 0.1
    assert (smooth_noise(places, 0.03, 7) == fields[7]).all()
