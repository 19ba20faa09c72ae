"""The segmentation energy and its targets, against independent computations."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zmagic.guidance.energies import Segmentation
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.nodes.parsing.colors import FACE_COLORS, parse_palette

from .derivatives import gradient
from .energy_table import ENERGIES
from .small_networks import Convolutions

CLASSES = 4
SIZE = (24, 32)
LOGITS, PROBABILITIES = ClassScores(CLASSES, False), ClassScores(CLASSES, True)

NAMES = tuple(name for name in ENERGIES if "segmentation" in name)
OF_PHOTOGRAPHS = tuple(name for name in NAMES if name.startswith("segmentation"))


@pytest.fixture
def reference() -> Tensor:
    return torch.rand(1, 3, *SIZE, dtype=torch.float64)


@pytest.fixture
def image() -> Tensor:
    """A batch that overshoots [0, 1] on both sides, as decoders do."""
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


# ---------------------------------------------------------------- what all its forms have in common


@pytest.mark.parametrize("name", NAMES)
def test_only_the_region_counts(name, reference, image):
    """Beyond the reach of the parser's window nothing outside influences the value."""
    energy = ENERGIES[name](reference)
    region = torch.rand(2, 1, *SIZE, dtype=torch.float64)
    region[..., :9] = 0.0
    far = image.clone()
    far[..., :5] = torch.rand_like(far[..., :5])
    torch.testing.assert_close(energy(far, region), energy(image, region))
    assert not energy(image, 0.0 * region).any()


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_perfect_match_is_the_minimum(name, reference, image):
    energy = ENERGIES[name](reference)
    assert energy(reference).abs().item() < 1e-12
    assert gradient(energy, reference).abs().max() < 1e-12
    assert (energy(image) > 1e-4).all()


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_targets_are_one_or_as_many_as_the_images(name):
    pictures = torch.rand(3, 3, *SIZE, dtype=torch.float64)
    with pytest.raises(ValueError, match="holds 2 pictures, expected 1 or the batch size 3"):
        ENERGIES[name](pictures[:2])(pictures)


# ---------------------------------------------------------------- what it measures


def pixelwise(image: Tensor) -> Tensor:
    """The picture itself as three maps of scores, one for each color."""
    return image


SCORES = ClassScores(3, False)


def test_cross_entropy_is_torchs_less_the_targets_entropy():
    image = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    target = torch.rand(2, 3, 6, 8, dtype=torch.float64).softmax(1)
    energy = Segmentation(pixelwise, SCORES, LabelMap(target, torch.ones(2, 1, 6, 8)))
    for b in range(2):
        expected = F.cross_entropy(image[b : b + 1], target[b : b + 1])
        entropy = torch.distributions.Categorical(target[b].movedim(0, -1)).entropy().mean()
        torch.testing.assert_close(energy(image)[b], expected - entropy)


def test_painted_classes_are_weighted_as_torch_weights_them():
    image = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    indices = torch.randint(0, 3, (1, 6, 8))
    indices[:, :2] = 255
    weights = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    target = LabelMap.from_indices(indices, 3)
    energy = Segmentation(pixelwise, SCORES, target, class_weights=weights)
    expected = F.cross_entropy(image, indices, weights, ignore_index=255)
    torch.testing.assert_close(energy(image)[0], expected)


def test_squared_error_of_probabilities():
    image = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    indices = torch.randint(0, 3, (1, 6, 8))
    energy = Segmentation(pixelwise, SCORES, LabelMap.from_indices(indices, 3), "squared error")
    one_hot = F.one_hot(indices, 3).movedim(-1, 1)
    expected = (image.softmax(1) - one_hot).square().sum(1).mean()
    torch.testing.assert_close(energy(image)[0], expected)


def test_free_pixels_have_no_influence():
    indices = torch.randint(0, 3, (1, 6, 8))
    indices[:, :, 5:] = 255
    energy = Segmentation(pixelwise, SCORES, LabelMap.from_indices(indices, 3))
    image = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    slope = gradient(energy, image)
    assert not slope[..., 5:].any() and slope[..., :5].abs().min() > 0.0
    other = image.clone()
    other[..., 5:] = 0.0
    assert torch.equal(energy(other), energy(image))


@pytest.mark.parametrize("distance", ["cross entropy", "squared error"])
def test_probabilities_do_not_get_a_second_softmax(image, reference, distance):
    parser = Convolutions(CLASSES)
    maps = parser(reference).softmax(1)
    target = LabelMap(maps, torch.ones_like(maps[:, :1]))
    energy = Segmentation(lambda x: 0.2 * parser(x), LOGITS, target, distance)
    same = Segmentation(lambda x: (0.2 * parser(x)).softmax(1), PROBABILITIES, target, distance)
    torch.testing.assert_close(same(image), energy(image), rtol=1e-3, atol=1e-5)


def test_a_probability_that_has_reached_zero_still_pulls():
    """In single precision a softmax rounds to 0; the logarithm alone would be infinite."""
    image = torch.zeros(1, 3, 6, 8)
    image[:, 0] = 120.0
    target = LabelMap.from_indices(torch.ones(1, 6, 8, dtype=torch.long), 3)
    sure = Segmentation(lambda x: x.softmax(1), ClassScores(3, True), target)
    assert sure(image).isfinite().all() and gradient(sure, image).isfinite().all()
    less = Segmentation(lambda x: (0.1 * x).softmax(1), ClassScores(3, True), target)
    assert gradient(less, image).abs().max() > 0.0


def test_scores_are_recognized():
    maps = torch.randn(2, 5, 6, 8)
    assert ClassScores.inferred(maps) == ClassScores(5, False)
    assert ClassScores.inferred(maps.softmax(1)) == ClassScores(5, True)
    assert ClassScores.inferred(maps[:, :1]) == ClassScores(2, False)
    assert ClassScores.inferred(maps[:, :1].sigmoid()) == ClassScores(2, True)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_single_score_is_that_of_class_one(sigmoid):
    logits = torch.randn(1, 1, 6, 8, dtype=torch.float64)
    maps = logits.sigmoid() if sigmoid else logits
    scores = ClassScores.inferred(maps)
    probabilities = scores.probabilities(maps)
    torch.testing.assert_close(probabilities[:, 1:], logits.sigmoid())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 6, 8, dtype=torch.float64))


def test_targets_keep_the_shares_of_classes_at_any_resolution():
    indices = torch.zeros(1, 64, 64, dtype=torch.long)
    indices[:, :, 48:] = 1  # a quarter
    indices[:, :16] = 255
    target = LabelMap.from_indices(indices, 2)
    for side in (64, 32, 16, 4, 2):
        values, weights = target.at(torch.rand(1, 3, 64, 64), torch.rand(1, 2, side, side))
        torch.testing.assert_close(values.sum(1, keepdim=True), (weights > 0).to(values))
        share = (values * weights).sum((0, 2, 3)) / weights.sum()
        torch.testing.assert_close(share, torch.tensor([0.75, 0.25]))
    finer, _ = target.at(torch.rand(1, 3, 64, 64), torch.rand(1, 2, 128, 128))
    assert set(finer.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", [(32, 32), (16, 32), (32, 16)])
def test_targets_are_cut_to_the_pictures_shape(size):
    """The middle of the target stands for the whole picture, which the maps cover."""
    indices = torch.arange(32 * 64).view(1, 32, 64) % 3
    target = LabelMap.from_indices(indices, 3)
    height = min(32, round(64 * size[0] / size[1]))
    width = min(64, round(32 * size[1] / size[0]))
    top, left = (32 - height) // 2, (64 - width) // 2
    middle = indices[:, top : top + height, left : left + width]
    values, _ = target.at(torch.rand(1, 3, *size), torch.rand(1, 3, height, width))
    assert torch.equal(values.argmax(1), middle)


# ---------------------------------------------------------------- targets


def test_index_map_round_trip():
    indices = torch.randint(0, CLASSES, (2, *SIZE))
    indices[:, :3] = 255
    gray = (indices.float() / 255.0)[:, None].expand(-1, 3, -1, -1)
    target = LabelMap.from_gray(gray, CLASSES)
    assert torch.equal(target.values.argmax(1)[:, 3:], indices[:, 3:])
    assert torch.equal(target.weights[:, 0], (indices != 255).float())


def test_color_map_round_trip():
    palette = parse_palette("", 19)
    indices = torch.randint(0, 19, (2, *SIZE))
    pictures = palette[indices].movedim(-1, 1)
    noisy = pictures + 0.04 * (torch.rand_like(pictures) - 0.5)
    noisy[..., :4] = 1.0  # white is nobody's color
    target = LabelMap.from_colors(noisy, palette, 19)
    assert torch.equal(target.values.argmax(1)[..., 4:], indices[..., 4:])
    assert not target.weights[..., :4].any() and target.weights[..., 4:].all()


def test_near_colors_are_told_apart():
    palette = parse_palette("#000000 #050505 #0a0a0a", 3)
    indices = torch.randint(0, 3, (1, *SIZE))
    target = LabelMap.from_colors(palette[indices].movedim(-1, 1), palette, 3)
    assert torch.equal(target.values.argmax(1), indices)


def test_face_colors_are_those_of_the_data_set():
    """CelebAMask-HQ numbers its parts so, and gives its tools these colors in that order."""
    theirs = (
        "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow",
        "left ear", "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring",
        "necklace", "neck", "clothes",
    )  # fmt: skip
    colors = (
        (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204),
        (0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0),
        (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51),
        (0, 204, 0),
    )  # fmt: skip
    levels = (255 * parse_palette("", 19)).round().long().tolist()
    palette = dict(zip(FACE_COLORS, levels, strict=True))
    assert palette == {name: list(color) for name, color in zip(theirs, colors, strict=True)}


def test_masks():
    hair, skin = torch.zeros(2, 1, 8, 8).unbind(0)
    hair[:, :3] = 1.0
    skin[:, 2:6] = 1.0
    target = LabelMap.from_masks([hair, skin], [17, 1], 19)
    assert target.values.shape == (1, 19, 8, 8)
    assert target.values[0, 17, 0, 0] == 1.0 and target.values[0, 1, 5, 0] == 1.0
    assert target.values[0, [1, 17], 2, 0].tolist() == [0.5, 0.5]  # both want this row
    assert target.weights[0, 0, :, 0].tolist() == [1.0] * 6 + [0.0] * 2


def test_soft_masks_of_several_sizes_and_batches():
    first = torch.full((2, 8, 8), 0.25)
    second = torch.full((1, 16, 32), 0.5)
    target = LabelMap.from_masks([first, second], [0, 1], 3)
    assert target.values.shape == (2, 3, 8, 8)
    torch.testing.assert_close(target.values[:, 0], torch.full((2, 8, 8), 1 / 3))
    torch.testing.assert_close(target.weights, torch.full((2, 1, 8, 8), 0.75))
    twice = LabelMap.from_masks([first, second], [0, 0], 3)  # of one class: the larger
    torch.testing.assert_close(twice.weights, torch.full((2, 1, 8, 8), 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: LabelMap.from_gray(torch.full((1, 3, 2, 2), 40 / 255), 19),
            "index map holds 40, expected the segmenter's classes 0 to 18, and 255",
        ),
        (
            lambda: LabelMap.from_gray(parse_palette("", 19)[None, :, :, None].mT, 19),
            "must be a gray picture .* got a colored one",
        ),
        (
            lambda: LabelMap.from_gray(torch.ones(1, 3, 2, 2), 19),
            "no pixel of the target asks for a class",
        ),
        (
            lambda: LabelMap.from_masks([torch.ones(1, 2, 2)], [1, 2], 19),
            "one class for each of the 1 masks, .* got 2",
        ),
        (
            lambda: LabelMap.from_masks([torch.ones(1, 2, 2)], [19], 19),
            "there is no class 19, expected 0 to 18",
        ),
        (
            lambda: LabelMap.from_masks([torch.ones(2, 2, 2), torch.ones(3, 2, 2)], [1, 2], 9),
            "masks hold 2 and 3 pictures",
        ),
    ],
)
def test_explanations(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (ClassScores(5, False), {}, "the target has 4 classes, the parser 5"),
        (LOGITS, {"compare": "logits"}, "logits are compared by 'squared error'"),
        (
            PROBABILITIES,
            {"compare": "logits", "distance": "squared error"},
            "the parser gives probabilities, expected 'probabilities' to be compared",
        ),
        (LOGITS, {"distance": "cosine"}, "distance must be one of cross entropy, squared error"),
    ],
)
def test_segmentation_refuses(scores, options, message):
    target = LabelMap.from_indices(torch.zeros(1, 4, 4, dtype=torch.long), CLASSES)
    with pytest.raises(ValueError, match=f"^.*{message}"):
        Segmentation(Convolutions(CLASSES), scores, target, **options)
