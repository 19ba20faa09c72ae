"""Portraits as they are really rendered: repeatable, with labels that are where they say."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from zmagic.lab.training.portraits import __main__ as command
from zmagic.lab.training.portraits.dataset import picture_id
from zmagic.lab.training.portraits.draws import draw_identity, draw_sitting
from zmagic.lab.training.portraits.people import COLORINGS
from zmagic.lab.training.portraits.scene import CLASS, build
from zmagic.lab.training.portraits.worker import Job, Studio

MISSING = [name for name in command.PACKAGES if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"rendering needs {' and '.join(MISSING)}: "
    "python -m pip install --no-deps -r lab/training/requirements.txt",
)

SEED, SIDE = 1, 64
# Pixels between a landmark and the class that it belongs to.
NEAR = 2.0
WORN = ("glasses", "hat", "beard")
# A pixel of the mask shows what most of it shows: frames are thinner than one at this size.
LARGE_ENOUGH = ("hat", "beard")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Ready after seconds; after minutes where anny has never been used before."""
    return Studio(Job(tmp_path_factory.mktemp("portraits"), SEED, SIDE, 4, "scalar_rgb"))


@pytest.fixture(scope="module")
def made(studio):
    """Labels, picture and mask of portraits with each thing worn, nothing worn, mouths open."""
    found, wanted = {}, {*WORN, "nothing", "bald", "laugh", "surprise", "woman"}
    for number in range(200):
        who = draw_identity(SEED, number, studio.model.phenotype_labels, studio.model.shape_labels)
        sitting = draw_sitting(SEED, who, 1)
        worn = {name for name in WORN if getattr(sitting, name) not in ("none", "stubble")}
        shows = (worn or {"nothing"}) | {sitting.haircut, sitting.expression, who.gender}
        if shows & wanted and sitting.expression != "closed eyes":
            wanted -= shows
            found[number] = studio.make((number, 1))
        if not wanted:
            return [read(studio.job.out, label) for label in found.values()]
    raise AssertionError(f"no {wanted} among 200 people")


def read(folder, label: dict) -> tuple[dict, np.ndarray, np.ndarray]:
    with Image.open(folder / f"{label['id']}.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (SIDE, SIDE))
        pixels = np.asarray(picture)
    with Image.open(folder / f"{label['id']}_mask.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (SIDE, SIDE))
        return label, pixels, np.asarray(mask)


def distance(mask: np.ndarray, *names: str) -> np.ndarray:
    """Pixels from each pixel to the nearest one of these classes [h, w]."""
    shown = np.isin(mask, [CLASS[name] for name in names])
    return ndimage.distance_transform_edt(~shown) if shown.any() else np.full(mask.shape, np.inf)


def at(values: np.ndarray, point: list[float]) -> float:
    """The value at a landmark, in fractions of the picture."""
    column, row = (min(int(place * SIDE), SIDE - 1) for place in point)
    return float(values[row, column])


def test_the_five_points_lie_on_their_parts(made):
    for label, _, mask in made:
        right_eye, left_eye, nose, right_mouth, left_mouth = label["landmarks"]
        for eye in (right_eye, left_eye):
            assert at(distance(mask, "eyes"), eye) <= NEAR, label["id"]
        for corner in (right_mouth, left_mouth):
            assert at(distance(mask, "lips"), corner) <= NEAR, label["id"]
        assert at(distance(mask, "skin"), nose) <= 1.0, label["id"]


def test_landmarks_are_in_the_picture_and_in_order(made):
    for label, _, mask in made:
        points = np.array(label["points68"])
        assert points.shape == (68, 2) and points.min() > 0.0 and points.max() < 1.0
        right_eye, left_eye, nose, right_mouth, left_mouth = np.array(label["landmarks"])
        # The portrait's right is on the left of the picture.
        assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < left_mouth[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
        for part in (range(3, 14), range(17, 27), range(31, 36), range(36, 40), range(48, 55)):
            assert (np.diff(points[list(part), 0]) > 0.0).all(), (label["id"], part)
        pairs = [(36, 42, right_eye), (42, 48, left_eye)]
        for start, end, eye in pairs:
            assert np.abs(points[start:end].mean(0) - eye).max() < 0.03
        assert np.allclose(points[[30, 48, 54]], [nose, right_mouth, left_mouth], atol=1e-4)
        lips = distance(mask, "lips")
        assert np.mean([at(lips, point) <= NEAR for point in points[48:60]]) > 0.9


def test_masks_show_what_is_labeled_and_nothing_else(made):
    seen = set()
    for label, _, mask in made:
        shown = {name for name, number in CLASS.items() if (mask == number).sum() > 0}
        assert mask.max() < len(CLASS)
        assert {"background", "skin", "lips", "brows", "eyes", "clothing"} <= shown
        assert ("hair" in shown) == (label["style"] != "bald")
        for name in WORN:
            labeled = label["beard_style" if name == "beard" else name] != "none"
            assert labeled or name not in shown, (label["id"], name)
            assert name in shown or not labeled or name not in LARGE_ENOUGH, (label["id"], name)
        seen |= shown
    assert seen == set(CLASS)


def test_masks_follow_the_picture(made):
    """The edge between person and background is an edge of the picture's colors."""
    for label, picture, mask in made:
        edge = ndimage.binary_dilation(mask == 0) & ndimage.binary_dilation(mask != 0)
        flat = ndimage.binary_erosion(mask == 0, iterations=3)
        slope = ndimage.gaussian_gradient_magnitude(picture.mean(2), 0.7)
        assert slope[edge].mean() > 3.0 * slope[flat].mean(), label["id"]


def test_the_same_portrait_has_the_same_bytes(made, studio, tmp_path):
    """Made again after others, with a studio whose state is another one."""
    label = made[0][0]
    files = [f"{label['id']}.jpg", f"{label['id']}_mask.png"]
    before = [(studio.job.out / name).read_bytes() for name in files]
    assert studio.make((label["identity"], label["picture"])) == label
    assert [(studio.job.out / name).read_bytes() for name in files] == before


def test_pictures_of_one_person_share_the_shape_of_the_head(studio):
    """Skulls of two people with the same face units differ, those of one person do not."""
    labels = (studio.model.phenotype_labels, studio.model.shape_labels)
    people = [draw_identity(SEED, number, *labels) for number in (2, 2, 3)]
    skulls = [studio.model.shaped(who.phenotype, who.shape, {}) for who in people]
    assert np.array_equal(skulls[0], skulls[1])
    assert np.abs(skulls[0] - skulls[2]).max() > 0.005
    sittings = [draw_sitting(SEED, people[0], picture) for picture in (1, 1 + COLORINGS)]
    portraits = [build(studio.model, people[0], sitting) for sitting in sittings]
    assert np.abs(portraits[0].points68 - portraits[1].points68).max() > 0.01


def test_pictures_of_one_sitting_differ_in_their_colors_alone(studio):
    made = [read(studio.job.out, studio.make((5, picture))) for picture in range(COLORINGS)]
    first, *others = made
    for label, picture, mask in others:
        assert label["points68"] == first[0]["points68"] and np.array_equal(mask, first[2])
        face = mask == CLASS["skin"]
        assert np.abs(picture[face].astype(int) - first[1][face]).mean() < 4.0  # edges, and JPEG
        assert np.abs(picture[~face].astype(int) - first[1][~face]).mean() > 8.0


def test_a_stopped_run_goes_on_and_makes_nothing_again(studio, tmp_path, monkeypatch, capsys):
    """The command line, with the head model at hand; what was lost is made as it was."""
    options = ["--identities", "2", "--pictures", "1", "--size", str(SIDE), "--seed", str(SEED)]
    monkeypatch.setattr(sys, "argv", ["portraits", "--out", str(tmp_path), *options])
    monkeypatch.setattr("zmagic.lab.training.portraits.worker.HeadModel", lambda: studio.model)

    def run() -> tuple[str, dict[str, bytes], dict[str, int]]:
        command.main()
        files = sorted(tmp_path.iterdir())
        return (
            capsys.readouterr().out,
            {path.name: path.read_bytes() for path in files},
            {path.name: path.stat().st_mtime_ns for path in files},
        )

    said, files, _ = run()
    assert "0 pictures exist, 2 to make" in said
    names = [picture_id(identity, 0) for identity in range(2)]
    suffixes = (".jpg", "_mask.png")
    assert set(files) == {"labels.jsonl", *(name + end for name in names for end in suffixes)}
    lines = files["labels.jsonl"].decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == names

    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    said, again, after = run()
    assert "2 pictures exist, 0 to make" in said and after == before and again == files

    (tmp_path / f"{names[0]}.jpg").unlink()
    said, again, after = run()
    assert "1 pictures exist, 1 to make" in said and again == files
    assert after[f"{names[1]}.jpg"] == before[f"{names[1]}.jpg"]
