"""Text, style and image similarity on real open_clip towers of small size, in double precision."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from skimage import data
from torch import Tensor, nn

from zmagic.guidance.embeddings import Targets
from zmagic.guidance.energies import ImageSimilarity, PatchSimilarity, RunEnergy, Style, Text
from zmagic.guidance.energies.image_similarity import reference_patches
from zmagic.guidance.energies.style import gram, mean_grams
from zmagic.guidance.pictures.preprocessing import Preprocessing

from . import small_networks
from .derivatives import gradient
from .small_networks import CLIP_VIEW

SIZE = (25, 27)
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    return small_networks.tower()


@pytest.fixture(scope="module")
def blocks() -> nn.Module:
    return small_networks.blocks()


@pytest.fixture
def image() -> Tensor:
    """A batch that overshoots [0, 1] on both sides, as decoders do."""
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


def in_third_step(energy: Text) -> Text:
    energy = energy.begin_run()
    energy.begin_step(3)
    return energy


def test_gradient_inside_a_region(tower, image):
    """Where the region is 1 the gradient is that of the value, which sees the surroundings."""
    energy = Text(tower, CLIP_VIEW, torch.randn(1, 16), torch.ones(1))
    region = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    region[..., 4:20, 7:19] = 1.0
    other = torch.where(region > 0.0, image, torch.rand_like(image))
    assert (energy(other, region) - energy(image, region)).abs().min() > 1e-6
    direction = region * torch.randn_like(image)
    step = 1e-5
    expected = (
        energy(image + step * direction, region) - energy(image - step * direction, region)
    ).sum() / (2 * step)
    slope = gradient(energy, image, region)
    torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- preprocessing


def astronaut() -> tuple[Image.Image, Tensor]:
    """A photograph of 400 x 300 pixels, for PIL and as a tensor."""
    pixels = np.ascontiguousarray(data.astronaut()[:300, 50:450])
    return Image.fromarray(pixels), torch.from_numpy(pixels).movedim(-1, 0)[None].double() / 255.0


FITS = [("shortest", "crop"), ("squash", "stretch")]


@pytest.mark.parametrize(("resize_mode", "fit"), FITS)
@pytest.mark.parametrize("size", [224, 336])
def test_preprocessing_is_that_of_open_clip_without_its_rounding(resize_mode, fit, size):
    photograph, tensor = astronaut()
    theirs = image_transform(size, False, MEAN, STD, resize_mode=resize_mode)
    ours = Preprocessing((size, size), MEAN, STD, fit=fit, interpolation="bicubic")
    steps = [t for t in theirs.transforms if type(t).__name__ in ("Resize", "CenterCrop")]
    exact = tensor
    for step in steps:  # torchvision resizes tensors without rounding
        exact = step(exact)
    torch.testing.assert_close(ours.resized(tensor), exact, rtol=0.0, atol=1e-12)
    # Through PIL, in 8 bits: measured at most 9.7 of 255 levels, where bicubic overshoots and PIL
    # clips, and 0.30 on average; 0.15 at most in the network's own units.
    std = torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    levels = (ours(tensor)[0] - theirs(photograph).double()).abs() * std * 255.0
    assert levels.max() < 12.0 and levels.mean() < 0.35


def test_energy_is_the_cosine_distance_that_open_clip_computes():
    torch.manual_seed(3)
    model = open_clip.CLIP(
        16,
        {"image_size": 64, "patch_size": 16, "width": 32, "head_width": 8, "layers": 2},
        {"context_length": 77, "width": 32, "heads": 4, "layers": 2},
    ).eval()
    photograph, tensor = astronaut()
    tokens = open_clip.SimpleTokenizer()(["an astronaut", "a cat"])
    with torch.no_grad():
        seen = model.encode_image(
            image_transform(64, False, MEAN, STD)(photograph)[None], normalize=True
        )
        texts = model.encode_text(tokens)
    cosines = (seen @ torch.nn.functional.normalize(texts, dim=-1).T)[0]
    ours = Preprocessing((64, 64), MEAN, STD, fit="crop", interpolation="bicubic")
    for weights, expected in [
        ([1.0, 1.0], (2.0 - cosines[0] - cosines[1]) / 2.0),
        ([3.0, 1.0], (4.0 - 3.0 * cosines[0] - cosines[1]) / 4.0),
        ([1.0, -1.0], (2.0 - cosines[0] + cosines[1]) / 2.0),
    ]:
        value = Text(model.visual, ours, texts, torch.tensor(weights))(tensor.float())[0]
        assert value.item() == pytest.approx(expected.item(), abs=2e-3)  # of the 8 bits


# ---------------------------------------------------------------- targets


def test_one_target_is_one_minus_cosine():
    embeddings, target = torch.randn(5, 16), torch.randn(1, 16)
    expected = 1.0 - torch.nn.functional.cosine_similarity(embeddings, target)
    result = Targets(target, torch.tensor([0.3])).distance(embeddings)
    torch.testing.assert_close(result, expected)


def test_targets_may_be_those_of_each_picture():
    embeddings, targets, weights = (
        torch.randn(3, 16),
        torch.randn(3, 2, 16),
        torch.tensor([1.0, -2]),
    )
    together = Targets(targets, weights).distance(embeddings)
    for b in range(3):
        alone = Targets(targets[b], weights).distance(embeddings[b : b + 1])
        torch.testing.assert_close(alone, together[b : b + 1])


def test_weights_are_relative_and_negatives_push_away():
    embeddings, targets = torch.randn(4, 16), torch.randn(2, 16)
    first, second = (Targets(t[None], torch.ones(1)).distance(embeddings) for t in targets)

    def distance(*weights: float) -> Tensor:
        return Targets(targets, torch.tensor(weights)).distance(embeddings)

    torch.testing.assert_close(distance(2.0, 6.0), (first + 3.0 * second) / 4.0)
    torch.testing.assert_close(distance(1.0, -1.0), (first + (2.0 - second)) / 2.0)
    assert distance(1.0, -3.0).min() >= 0.0


def test_half_precision_embeddings_are_compared_in_single():
    embeddings = (300.0 * torch.randn(3, 16)).half()  # squares beyond the range of half precision
    result = Targets(embeddings[:1], torch.ones(1)).distance(embeddings)
    assert result.dtype == torch.float32 and result[0].abs() < 1e-6


@pytest.mark.parametrize(
    ("embeddings", "weights", "message"),
    [
        (torch.randn(0, 16), torch.ones(0), "^expected one weight for each"),
        (torch.randn(2, 16), torch.ones(3), "^expected .* got .3. weights for 2 targets"),
        (torch.randn(1, 16), torch.zeros(1), "^weights must be numbers other than 0"),
        (torch.randn(1, 16), torch.tensor([torch.nan]), "^weights must be numbers"),
    ],
)
def test_targets_refuse(embeddings, weights, message):
    with pytest.raises(ValueError, match=message):
        Targets(embeddings, weights)


# ---------------------------------------------------------------- text


@pytest.fixture
def text(tower) -> Text:
    torch.manual_seed(4)
    return Text(tower, CLIP_VIEW, torch.randn(2, 16), torch.ones(2), views=4)


def test_crops_are_fixed_in_a_step_and_new_in_the_next(text, image):
    assert isinstance(text, RunEnergy)
    run = text.begin_run()
    values = []
    for step in (0, 1, 0):
        run.begin_step(step)
        values.append(run(image))
        assert torch.equal(run(image), values[-1])
    assert not torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_crops_follow_the_prompts_and_nothing_else(text, tower, image):
    first = in_third_step(text)(image)
    torch.rand(7)  # the global generator has no part in it
    assert torch.equal(in_third_step(text)(image), first)
    torch.manual_seed(5)
    other = Text(tower, CLIP_VIEW, torch.randn(2, 16), torch.ones(2), views=4)
    assert in_third_step(text)._crops.scales != in_third_step(other)._crops.scales


def test_a_run_leaves_the_energy_as_it_was(text, image):
    before = text(image)
    run = in_third_step(text)
    run(image)
    assert torch.equal(text(image), before)


def test_one_view_is_the_whole_picture(text, tower, image):
    whole = text.targets.distance(tower(CLIP_VIEW(image)))
    single = in_third_step(Text(tower, CLIP_VIEW, torch.randn(2, 16), torch.ones(2)))
    single.targets = text.targets
    assert torch.equal(single(image), whole)
    assert not torch.equal(in_third_step(text)(image), whole)
    finished = in_third_step(text)
    finished.begin_step(None)
    assert torch.equal(finished(image), whole)


def test_crops_lie_in_the_picture_and_reach_its_sides():
    """Each view of a picture whose colors are its coordinates says where it was taken."""
    height, width = 30, 90
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    places = torch.stack((x, y, torch.zeros_like(x)))[None]
    plain = Preprocessing((32, 32), fit="crop")
    text = Text(lambda pixels: pixels, plain, torch.randn(1, 16), torch.ones(1), views=40)
    views = in_third_step(text)._crops(places, None, plain)
    extents = torch.stack([torch.stack((v[0, 0].min(), v[0, 0].max())) for v in views])
    assert views[0].shape == (1, 3, 32, 32)
    assert extents.min() >= -1e-5 and extents.max() <= 1.0 + 1e-5
    assert extents[:, 0].min() < 0.1 and extents[:, 1].max() > 0.9  # beyond the center crop
    sides = (extents[:, 1] - extents[:, 0]) * width / height
    assert 0.45 < sides.min() < 0.65 and 0.85 < sides.max() <= 1.0 + 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 0}, "^expected at least 1 view, got 0"),
        ({"least_crop": 0.0}, "^the smallest crop must be in .0, 1., got 0"),
        ({"least_crop": 1.5}, "^the smallest crop"),
    ],
)
def test_text_refuses(tower, arguments, message):
    with pytest.raises(ValueError, match=message):
        Text(tower, CLIP_VIEW, torch.randn(1, 16), torch.ones(1), **arguments)


# ---------------------------------------------------------------- style


def test_gram_by_its_definition():
    tokens = torch.randn(2, 7, 4)
    expected = torch.zeros(2, 4, 4)
    for b in range(2):
        for n in range(7):
            expected[b] += torch.outer(tokens[b, n], tokens[b, n]) / 7
    torch.testing.assert_close(gram(tokens), expected)
    maps = tokens[:, :6].transpose(1, 2).reshape(2, 4, 2, 3)
    torch.testing.assert_close(gram(maps), gram(tokens[:, :6]))


def test_gram_is_never_in_half_precision():
    tokens = 200.0 * torch.randn(1, 50, 8)
    for dtype in (torch.float16, torch.bfloat16):
        half = tokens.to(dtype)
        assert gram(half).dtype == torch.float32
        torch.testing.assert_close(gram(half), gram(half.float()))


def test_gram_refuses_a_vector():
    with pytest.raises(ValueError, match=r"tokens \[batch, tokens, channels\] .* got \[2, 8\]"):
        gram(torch.randn(2, 8))


def test_style_is_the_relative_squared_frobenius_distance(blocks, image):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    seen, shown = (blocks(CLIP_VIEW(x)) for x in (image, reference))
    for block in range(2):
        target = gram(shown[block])[0].numpy()
        for b in range(2):
            difference = gram(seen[block])[b].numpy() - target
            relative = np.linalg.norm(difference) / np.linalg.norm(target)
            expected[b] += relative**2 / 2
    torch.testing.assert_close(Style.of(blocks, CLIP_VIEW, reference)(image), expected)


def test_style_ignores_the_order_of_places():
    shuffled = torch.randn(1, 9, 4)
    energy = Style(lambda x: [x], Preprocessing(None), (gram(shuffled)[0],))
    order = torch.randperm(9)
    assert _relative(energy, shuffled[:, order]) < 1e-10


def _relative(energy: Style, tokens: Tensor) -> float:
    energy.network = lambda image: [tokens]
    return energy(torch.zeros(1, 3, 4, 4)).item()


def test_the_style_picture_has_its_own_style(blocks):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    energy = Style.of(blocks, CLIP_VIEW, reference)
    assert energy(reference).item() < 1e-20
    assert energy(torch.rand_like(reference)).item() > 1e-4


def test_several_styles_are_averaged_with_weights(blocks):
    references = torch.rand(2, 3, 40, 30, dtype=torch.float64)
    features = blocks(CLIP_VIEW(references))
    for mean, feature in zip(mean_grams(features, torch.tensor([1.0, 3.0])), features, strict=True):
        first, second = gram(feature)
        torch.testing.assert_close(mean, (first + 3.0 * second) / 4.0)


@pytest.mark.parametrize("targets", [(), (torch.zeros(4, 4),)])
def test_style_refuses_blocks_without_activity(blocks, targets):
    with pytest.raises(ValueError, match="^the chosen blocks do not respond"):
        Style(blocks, CLIP_VIEW, targets)


# ---------------------------------------------------------------- image similarity


def test_a_reference_resembles_itself(tower):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    energy = ImageSimilarity(tower, CLIP_VIEW, tower(CLIP_VIEW(reference)), torch.ones(1))
    assert abs(energy(reference).item()) < 1e-12
    assert energy(torch.rand_like(reference)).item() > 1e-4


def test_several_references_are_the_mean_of_their_distances(tower, image):
    references = tower(CLIP_VIEW(torch.rand(2, 3, 40, 30, dtype=torch.float64)))
    references[1] *= 10.0  # the length of an embedding has no part in it

    def energy(which, *weights):
        return ImageSimilarity(tower, CLIP_VIEW, references[which], torch.tensor(weights))

    first, second = energy([0], 1.0)(image), energy([1], 1.0)(image)
    torch.testing.assert_close(energy([0, 1], 1.0, 3.0)(image), (first + 3.0 * second) / 4.0)


# ---------------------------------------------------------------- patches

PATCH = 8


def patch_network() -> nn.Module:
    """A network that sees each patch by itself, as a vision transformer without positions."""
    torch.manual_seed(4)
    layers = nn.Conv2d(3, 24, PATCH, PATCH), nn.Tanh(), nn.Conv2d(24, 16, 1)
    return nn.Sequential(*layers).double().requires_grad_(False)


def patches_of(network, reference: Tensor, counts: Tensor | None = None) -> PatchSimilarity:
    view = Preprocessing(tuple(reference.shape[-2:]))
    patches = reference_patches(network(reference), torch.ones(len(reference)), counts)
    return PatchSimilarity(network, view, patches)


def test_patches_are_found_wherever_they_are():
    """Whole patches may be moved in any way: nothing of the energy changes."""
    network, reference = patch_network(), torch.rand(1, 3, 32, 48, dtype=torch.float64)
    energy = patches_of(network, reference)
    assert abs(energy(reference).item()) < 1e-12
    other = torch.rand_like(reference)
    assert energy(other).item() > 1e-4
    for down, right in ((PATCH, 0), (0, -2 * PATCH), (3 * PATCH, 5 * PATCH)):
        moved = other.roll((down, right), (2, 3))
        torch.testing.assert_close(energy(moved), energy(other))
        assert abs(energy(reference.roll((down, right), (2, 3))).item()) < 1e-12


def test_the_energy_is_the_mean_over_best_matches():
    network, reference = patch_network(), torch.rand(1, 3, 16, 24, dtype=torch.float64)
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    known, found = (network(x).flatten(2).transpose(1, 2) for x in (reference, image))
    expected = torch.zeros(2, dtype=torch.float64)
    for b in range(2):
        for m in range(6):
            cosines = torch.cosine_similarity(found[b], known[0, m][None], dim=1)
            expected[b] += (1.0 - cosines.max()) / 6
    torch.testing.assert_close(patches_of(network, reference)(image), expected)


def test_what_does_not_count_of_a_reference_is_not_looked_for():
    network, reference = patch_network(), torch.rand(1, 3, 32, 48, dtype=torch.float64)
    counts = torch.zeros(1, 1, 32, 48, dtype=torch.float64)
    counts[..., :PATCH, : 2 * PATCH] = 1.0
    energy = patches_of(network, reference, counts)
    image = torch.rand_like(reference)
    image[..., -PATCH:, -2 * PATCH :] = reference[..., :PATCH, : 2 * PATCH]
    assert abs(energy(image).item()) < 1e-12


def test_matches_outside_of_a_region_do_not_count():
    network, reference = patch_network(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    energy = patches_of(network, reference)
    region = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    region[..., :PATCH, :] = 1.0
    region[..., PATCH:, :PATCH] = 1.0  # its box is the whole picture
    assert abs(energy(reference).item()) < 1e-12
    assert energy(reference, region).item() > 1e-3  # what is elsewhere is not found


def test_references_count_by_their_weights():
    network, references = patch_network(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    first, second = (patches_of(network, each[None])(image) for each in references)
    patches = reference_patches(network(references), [1.0, 3.0])
    both = PatchSimilarity(network, Preprocessing((16, 16)), patches)
    torch.testing.assert_close(both(image), (first + 3.0 * second) / 4.0)
