"""Who is in the rendered portraits, what is said about them, and the files; nothing is rendered."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from zmagic.lab.training import captions, data
from zmagic.lab.training.portraits import __main__ as command
from zmagic.lab.training.portraits import dataset, expressions, haircuts
from zmagic.lab.training.portraits.draws import GLASSES, HATS, draw_identity, draw_sitting
from zmagic.lab.training.portraits.palette import BACKGROUND, CLOTH, HAIR
from zmagic.lab.training.portraits.people import COLORINGS, caption
from zmagic.lab.training.portraits.scene import CLASSES, Camera, Portrait

PACK = Path(__file__).resolve().parents[2]

# Some of the labels that anny gives: of phenotypes, and of changes of the shape.
PHENOTYPES = (
    "gender", "age", "muscle", "weight", "height", "proportions", "african", "asian", "caucasian",
)  # fmt: skip
SHAPES = (
    "head-oval", "head-scale-vert", "chin-width", "nose-trans-out", "forehead-nubian",
    "l-eye-height1", "r-eye-height1", "l-eye-scale", "r-eye-scale", "l-ear-wing", "r-ear-wing",
    "l-cheek-bones", "r-cheek-bones",
)  # fmt: skip

# What stays with a person, what is drawn for each sitting, and what for each of its pictures, as
# the labels call it.
OF_THE_PERSON = ("identity", "split", "gender", "race", "age", "old", "eyes")
OF_THE_SITTING = (
    "expression", "haircut", "yaw", "pitch", "roll", "light", "light_height", "garment",
)  # fmt: skip
OF_THE_PICTURE = ("hair", "cloth", "bg", "backdrop")

CAPTION = re.compile(
    r"a photo of an? (?P<age>old|young) (?P<race>\w+) (?P<gender>man|woman) with "
    r"(a (?P<bald>bald) head|(?P<style>short|medium|long) (?P<hair>\w+) hair)"
    r"( and (a )?(?P<beard>beard|moustache|stubble))?"
    r"(?P<glasses>, wearing glasses)?"
    r"(, wearing a (?P<hat>\w+) hat)?"
    r"(, (?P<expression>smiling|laughing|mouth open|surprised|eyes closed|frowning|pouting))?"
    r", wearing (?P<cloth>\w+), (?P<bg>\w+) background"
)

numbers = st.integers(0, 100_000)


def person(seed: int, number: int):
    return draw_identity(seed, number, PHENOTYPES, SHAPES)


def portrait(side: float = 0.0) -> Portrait:
    """One without meshes: labels need its points alone."""
    origin, target = np.array([0.0, -1.6, 0.0]), np.zeros(3)
    points = np.linspace(0.2, 0.8, 73 * 2).reshape(73, 2) + side
    return Portrait([], Camera(origin, target, 13.0), target, points[:68], points[68:])


def labels(seed: int, number: int, picture: int) -> dict:
    who = person(seed, number)
    return dataset.describe(who, draw_sitting(seed, who, picture), portrait())


# ---------------------------------------------------------------- who, and how


@settings(max_examples=30, deadline=None)
@given(seed=numbers, number=numbers, picture=st.integers(0, 20))
def test_a_portrait_depends_on_seed_person_and_picture_alone(seed, number, picture):
    who = person(seed, number)
    sitting = draw_sitting(seed, who, picture)
    for other in range(3):  # people and pictures drawn in between play no part
        draw_sitting(seed, person(seed, number + 1 + other), other)
    assert person(seed, number) == who
    assert draw_sitting(seed, who, picture) == sitting
    assert person(seed + 1, number).shape != who.shape != person(seed, number + 1).shape
    assert draw_sitting(seed, who, picture + 1) != sitting
    assert draw_sitting(seed, person(seed, number + 1), picture) != sitting


def test_a_person_stays_while_the_picture_changes():
    drawn = [[labels(1, number, picture) for picture in range(24)] for number in range(20)]
    for pictures in drawn:
        for key in OF_THE_PERSON:
            assert len({label[key] for label in pictures}) == 1
        for key in OF_THE_SITTING:
            assert len({label[key] for label in pictures[::COLORINGS]}) > 1
            assert len({label[key] for label in pictures[:COLORINGS]}) == 1
        for key in OF_THE_PICTURE:
            assert key == "hair" or len({label[key] for label in pictures}) > 1
    people = [pictures[0] for pictures in drawn]
    assert len({label["age"] for label in people}) == len(people)


def test_people_differ_in_shape_more_than_the_sides_of_a_face():
    shapes = [person(1, number).shape for number in range(100)]
    assert all(set(shape) == set(SHAPES) for shape in shapes)
    values = np.array([[shape[label] for label in SHAPES] for shape in shapes])
    assert np.abs(values).max() <= 0.95
    left, right = (
        values[:, [label.startswith(f"{side}-") for label in SHAPES]] for side in ("l", "r")
    )
    assert np.abs(left - right).std() < 0.06 < 0.15 < left.std(0).min()
    assert len(np.unique(values.round(6), axis=0)) == len(shapes)


@settings(max_examples=60, deadline=None)
@given(seed=numbers, number=numbers, picture=st.integers(0, 20))
def test_everything_drawn_is_in_its_range(seed, number, picture):
    who = person(seed, number)
    sitting = draw_sitting(seed, who, picture)
    assert all(0.0 <= value <= 1.0 for value in who.phenotype.values())
    assert max(("african", "asian", "caucasian"), key=who.phenotype.get) == who.race
    assert (who.phenotype["gender"] > 0.5) == (who.gender == "woman")  # anny: 0 is male
    for color in (who.skin, who.hair, who.iris):
        assert len(color) == 3 and 0.0 <= min(color) <= max(color) <= 0.9
    assert abs(sitting.yaw) <= 0.45 and abs(sitting.pitch) <= 0.22 and abs(sitting.roll) <= 0.18
    assert abs(sitting.camera_yaw) <= 0.25 and 0.93 <= sitting.zoom <= 1.06
    assert abs(sitting.light_side) <= 1.0 and 0.0 <= sitting.contrast <= 1.0
    assert sitting.haircut in haircuts.CHANCES[who.gender]
    assert sitting.beard == "none" or who.gender == "man"
    assert sitting.make_up == 0.0 or who.gender == "woman"
    assert len(sitting.hair) == 3 and 0.0 <= min(sitting.hair) <= max(sitting.hair) <= 0.9
    assert all(0.0 < strength <= 1.0 for strength in sitting.units.values())
    moved = {unit.removesuffix("Left").removesuffix("Right") for unit in sitting.units}
    assert moved == set(expressions.EXPRESSIONS[sitting.expression])


def test_halves_of_the_face_move_alike():
    for expression, units in expressions.EXPRESSIONS.items():
        drawn = expressions.draw_units(np.random.default_rng(0), expression)
        left = {unit.removesuffix("Left"): v for unit, v in drawn.items() if unit.endswith("Left")}
        right = {u.removesuffix("Right"): v for u, v in drawn.items() if u.endswith("Right")}
        assert left == right
        for unit, (low, high) in units.items():
            assert low <= drawn.get(unit, left.get(unit)) <= high


def test_every_choice_occurs_about_as_often_as_it_should():
    drawn = [labels(3, number, picture) for number in range(500) for picture in (1, 6)]

    def share(key, *values):
        return sum(label[key] in values for label in drawn) / len(drawn)

    assert len({label["haircut"] for label in drawn}) == len(haircuts.STYLES)
    assert share("glasses", *GLASSES) == pytest.approx(0.20, abs=0.04)
    assert share("hat", *HATS) == pytest.approx(0.12, abs=0.03)
    assert share("gender", "man") == pytest.approx(0.5, abs=0.08)
    for expression, chance in zip(expressions.EXPRESSIONS, expressions.CHANCES, strict=True):
        assert share("expression", expression) == pytest.approx(chance, abs=0.05)
    assert sum(expressions.CHANCES) == pytest.approx(1.0)
    assert {label["cloth"] for label in drawn} == set(CLOTH)
    assert {label["bg"] for label in drawn} == set(BACKGROUND)
    assert {label["hair"] for label in drawn} == set(HAIR)


@pytest.mark.parametrize("picture", [0, 1])
def test_how_someone_sits_says_nothing_of_who_it_is(picture):
    """Chi squared of independent draws is below 4 times its degrees of freedom, ever so often."""
    drawn = [labels(1, number, picture) for number in range(400)]
    for key in ("expression", "cloth", "bg", "glasses"):
        for of_the_person in ("gender", "race"):
            pairs = [[label[of_the_person], label[key]] for label in drawn]
            rows, columns = (np.unique(v, return_inverse=True)[1] for v in np.transpose(pairs))
            table = np.zeros((rows.max() + 1, columns.max() + 1))
            np.add.at(table, (rows, columns), 1.0)
            expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
            chi_squared = ((table - expected) ** 2 / expected).sum()
            assert chi_squared < 4.0 * (len(table) - 1) * (table.shape[1] - 1), (key, of_the_person)


# ---------------------------------------------------------------- what is said


def test_captions_say_what_the_labels_say():
    """Read back by a grammar of its own: each word is there exactly when it is labeled."""
    for label in (labels(5, number, picture) for number in range(250) for picture in range(3)):
        said = CAPTION.fullmatch(label["caption"])
        assert said, label["caption"]
        assert (said["age"] == "old") == label["old"]
        assert (said["race"], said["gender"]) == (label["race"], label["gender"])
        assert (said["bald"] or said["style"]) == label["style"]
        assert said["hair"] == (None if label["style"] == "bald" else label["hair"])
        beard = {"none": None, "stubble": "stubble", "moustache": "moustache"}
        assert said["beard"] == beard.get(label["beard_style"], "beard")
        assert (said["beard"] in ("beard", "moustache")) == label["beard"]
        assert (said["glasses"] is not None) == (label["glasses"] != "none")
        assert (said["hat"] or "none") == label["hat_color"]
        assert (said["hat"] is not None) == (label["hat"] != "none")
        assert (said["expression"] or "") == expressions.WORDS[label["expression"]]
        assert (said["expression"] in ("smiling", "laughing")) == label["smile"]
        assert (said["cloth"], said["bg"]) == (label["cloth"], label["bg"])


def test_a_caption_has_the_article_that_belongs_there():
    for number in range(40):
        who = person(7, number)
        said = caption(who, draw_sitting(7, who, 0))
        assert said.startswith(("a photo of an old ", "a photo of a young "))


def test_training_asks_for_the_colors_and_classes_that_are_rendered():
    assert tuple(HAIR) == captions.HAIR
    assert tuple(CLOTH) == captions.CLOTHES
    assert CLASSES[: len(data.CLASSES)] == data.CLASSES
    assert sorted(data.MERGED) == [CLASSES.index(name) for name in ("glasses", "hat")]


README = (PACK / "lab" / "training" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [dataset.__doc__, README], ids=["docstring", "README"])
def test_the_documented_numbers_are_those_of_the_classes(text):
    found = re.findall(r"\b(\d) (" + "|".join(CLASSES) + r")\b", text)
    assert found == [(str(number), name) for number, name in enumerate(CLASSES)]


def test_every_label_is_documented():
    known = set(re.findall(r"`(\w+)`", README[README.index("## Portraits") :]))
    assert set(labels(1, 0, 0)) <= known


# ---------------------------------------------------------------- files


def drawn_picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return image, rng.integers(0, len(CLASSES), (16, 16), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two pictures of each of ten people, of noise, as a run leaves them."""
    for identity, picture in dataset.wanted(10, 2):
        line = labels(1, identity, picture)
        dataset.save(tmp_path, *drawn_picture(identity), line)
        dataset.append_labels(tmp_path, line)
    return tmp_path


def test_files_are_what_training_reads(folder):
    read = data.read_portraits(folder, "train", "validation", "test")
    assert read.images.shape == (20, 3, 16, 16) and len(read.people.unique()) == 10
    for k, label in enumerate(read.labels):
        mask = drawn_picture(label["identity"])[1]
        for number, merged in data.MERGED.items():
            mask[mask == number] = merged
        assert (read.classes[k].numpy() == mask).all()
    expected = portrait()
    assert np.allclose(read.points.numpy(), expected.points5, atol=1e-4)
    assert np.allclose(read.points68.numpy(), expected.points68, atol=1e-4)


def test_people_are_split_and_lines_say_so(folder):
    for name, people in (("train", range(8)), ("validation", [8]), ("test", [9])):
        read = data.read_portraits(folder, name)
        assert {label["identity"] for label in read.labels} == set(people)
        assert {label["split"] for label in read.labels} == {name}
    splits = [data.split_of(identity) for identity in range(1000)]
    assert [splits.count(name) for name in ("train", "validation", "test")] == [800, 100, 100]


def test_formats_are_the_documented_ones(folder):
    with Image.open(folder / "00003_1.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (16, 16))
        assert JpegImagePlugin.get_sampling(picture) == 0  # full color resolution
        assert picture.quantization[0][0] == 2  # 16 at quality 50, a tenth of it at 95
    with Image.open(folder / "00003_1_mask.png") as mask:
        assert (mask.format, mask.mode) == ("PNG", "L")
        assert (np.array(mask) == drawn_picture(3)[1]).all()
    for line in (folder / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        assert label["id"] == dataset.picture_id(label["identity"], label["picture"])


def test_a_line_that_was_cut_off_is_dropped_and_its_picture_made_again(folder):
    whole = (folder / "labels.jsonl").read_text()
    everything = {dataset.picture_id(*task) for task in dataset.wanted(10, 2)}
    assert dataset.finished(folder) == everything
    assert (folder / "labels.jsonl").read_text() == whole  # untouched

    (folder / "labels.jsonl").write_text(whole[:-40])
    assert dataset.finished(folder) == everything - {"00009_1"}
    assert (folder / "labels.jsonl").read_text() == "".join(whole.splitlines(True)[:-1])

    dataset.append_labels(folder, labels(1, 9, 1))
    assert (folder / "labels.jsonl").read_text() == whole


@pytest.mark.parametrize("suffix", [".jpg", "_mask.png"])
def test_a_picture_without_both_files_is_made_again(folder, suffix):
    (folder / f"00004_0{suffix}").unlink()
    assert "00004_0" not in dataset.finished(folder)
    kept = [json.loads(line)["id"] for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert len(kept) == 19 and "00004_0" not in kept


def test_files_without_a_line_are_made_again(tmp_path):
    dataset.save(tmp_path, *drawn_picture(0), labels(1, 0, 0))
    assert dataset.finished(tmp_path) == set()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_lines_are_brought_into_order(folder):
    path = folder / "labels.jsonl"
    ordered = path.read_text()
    path.write_text("".join(reversed(ordered.splitlines(True))))
    dataset.sort_labels(folder)
    assert path.read_text() == ordered


def test_a_range_of_people_can_be_asked_for():
    assert list(dataset.wanted(2, 2, first=7)) == [(7, 0), (7, 1), (8, 0), (8, 1)]


# ---------------------------------------------------------------- without the two packages


def test_a_run_without_the_packages_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    monkeypatch.setattr(sys, "argv", ["portraits", "--out", str(tmp_path / "new")])
    with pytest.raises(
        SystemExit, match="anny and mitsuba: .* --no-deps -r lab/training/requirements"
    ):
        command.main()
    assert not (tmp_path / "new").exists()


def test_only_making_portraits_needs_the_packages():
    """Every module is imported in a new process in which the two cannot be."""
    folder = PACK / "lab" / "training" / "portraits"
    modules = [f"lab.training.portraits.{path.stem}" for path in folder.glob("*.py")]
    absent = "dict.fromkeys(('anny', 'mitsuba', 'drjit', 'warp'))"
    code = f"import sys, importlib; sys.modules.update({absent})\n"
    code += f"for name in {modules}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], cwd=PACK, check=True)


def test_what_is_drawn_is_plain_data():
    """Equal draws compare equal, and nothing of numpy reaches the labels."""
    who = person(1, 1)
    for drawn in (who, draw_sitting(1, who, 0)):
        for field in fields(drawn):
            assert isinstance(asdict(drawn)[field.name], (str, int, float, tuple, dict))
    assert json.loads(json.dumps(labels(1, 1, 0))) == labels(1, 1, 0)
