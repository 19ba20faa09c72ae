"""Text, style and image similarity on real open_clip towers of small size, in double precision."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zmagic.guidance.embeddings import Targets
from zmagic.guidance.energies import Energy, ImageSimilarity, RunEnergy, Style, Text
from zmagic.guidance.energies.style import gram, mean_grams
from zmagic.guidance.pictures.preprocessing import Preprocessing

SIDE = 32
SIZE = (25, 27)
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


class Tower(nn.Module):
    """open_clip's own vision transformer, small: embedding, or maps after two blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.visual = open_clip.transformer.VisionTransformer(
            image_size=SIDE,
            patch_size=8,
            width=32,
            layers=4,
            heads=4,
            mlp_ratio=2.0,
            output_dim=16,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.visual(pixels)

    def features(self, pixels: Tensor) -> list[Tensor]:
        result = self.visual.forward_intermediates(
            pixels, indices=[1, 2], stop_early=True, intermediates_only=True
        )
        return result["image_intermediates"]


@pytest.fixture(autouse=True)
def _differentiable_twice():
    """The fused attention kernels have one derivative only."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@pytest.fixture(scope="module")
def tower() -> Tower:
    return Tower().eval().requires_grad_(False).double()


@pytest.fixture(scope="module")
def preprocessing() -> Preprocessing:
    return Preprocessing((SIDE, SIDE), MEAN, STD, fit="crop", interpolation="bicubic")


@pytest.fixture
def image() -> Tensor:
    """A batch that overshoots [0, 1] on both sides, as decoders do."""
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


def in_third_step(energy: Text) -> Text:
    energy = energy.begin_run()
    energy.begin_step(3)
    return energy


def style(tower: Tower, preprocessing: Preprocessing, references: Tensor) -> Style:
    targets = mean_grams(tower.features(preprocessing(references)), torch.ones(len(references)))
    return Style(tower.features, preprocessing, targets)


ENERGIES = {
    "text": lambda net, see: Text(net, see, torch.randn(1, 16), torch.ones(1)),
    "text and negative": lambda net, see: Text(
        net, see, torch.randn(3, 16), torch.tensor([1.0, 2.0, -0.5])
    ),
    "text with crops": lambda net, see: in_third_step(
        Text(net, see, torch.randn(1, 16), torch.ones(1), views=3, least_crop=0.4)
    ),
    "style": lambda net, see: style(net, see, torch.rand(1, 3, 40, 50).double()),
    "image similarity": lambda net, see: ImageSimilarity(
        net, see, net(see(torch.rand(2, 3, 20, 30).double())), torch.tensor([1.0, 3.0])
    ),
}


@pytest.fixture(params=ENERGIES, ids=lambda name: name.replace(" ", "-"))
def energy(request, tower, preprocessing) -> Energy:
    torch.manual_seed(2)
    return ENERGIES[request.param](tower, preprocessing)


def gradient(energy: Energy, image: Tensor, region: Tensor | None = None) -> Tensor:
    image = image.detach().requires_grad_(True)
    (result,) = torch.autograd.grad(energy(image, region).sum(), image)
    return result


def soft_region(batch: int = 2) -> Tensor:
    region = torch.rand(batch, 1, *SIZE, dtype=torch.float64)
    region[..., :6] = 0.0
    region[..., 5:9, 10:13] = 0.0
    return region


# ---------------------------------------------------------------- what every energy promises


def test_protocol(energy, image):
    assert isinstance(energy, Energy)
    assert energy(image).shape == (2,)
    assert energy(image).dtype == torch.float64


def test_gradient(energy, image):
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(energy, image, fast_mode=True)


def test_hessian_product(energy, image):
    direction = torch.randn_like(image)
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image).sum(), image, create_graph=True)
    (product,) = torch.autograd.grad(slope, image, direction)
    step = 1e-5
    expected = (
        gradient(energy, image + step * direction) - gradient(energy, image - step * direction)
    ) / (2 * step)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5 * product.abs().max())


def test_samples_are_independent(energy, image):
    region = soft_region()
    together = energy(image, region)
    for b in range(2):
        torch.testing.assert_close(energy(image[b : b + 1], region[b : b + 1])[0], together[b])
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image, region)[0], image)
    assert slope[0].abs().max() > 0.0
    assert not slope[1].any()


@pytest.mark.parametrize("batch", [1, 2])
def test_only_the_region_is_moved(energy, image, batch):
    region = soft_region(batch)
    slope = gradient(energy, image, region)
    outside = (region == 0.0).expand_as(image)
    assert not slope[outside].any()
    assert slope[~outside].abs().max() > 0.0


def test_gradient_inside_a_region(energy, image):
    """Where the region is 1 the gradient is that of the value, which sees the surroundings."""
    region = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    region[..., 4:20, 7:19] = 1.0
    direction = region * torch.randn_like(image)
    step = 1e-5
    expected = (
        energy(image + step * direction, region) - energy(image - step * direction, region)
    ).sum() / (2 * step)
    slope = gradient(energy, image, region)
    torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-6, atol=1e-9)


def test_empty_region_is_finite_and_does_not_guide(energy, image):
    empty = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    assert energy(image, empty).isfinite().all()
    assert not gradient(energy, image, empty).any()


@pytest.mark.parametrize("level", [-0.5, 0.0, 1.0, 1.5])
def test_flat_and_overshooting_images_are_finite(energy, level):
    image = torch.full((1, 3, *SIZE), level, dtype=torch.float64)
    assert energy(image).isfinite().all()
    assert gradient(energy, image).isfinite().all()


def test_single_precision_agrees_with_double(energy, image, tower, preprocessing):
    exact = energy(image)
    single = Tower().eval().requires_grad_(False)
    energy.network = single.features if isinstance(energy, Style) else single
    value = energy(image.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ENERGIES)
def test_made_and_first_used_in_inference_mode(name, image, tower, preprocessing):
    """The host runs nodes in inference mode; what they make must still allow gradients."""
    with torch.inference_mode():
        energy = ENERGIES[name](tower, preprocessing)
        energy(image)
    assert gradient(energy, image).isfinite().all()


def test_descent_on_pixels_lowers_the_energy(energy, image):
    before = energy(image)
    for k in range(20):
        slope = gradient(energy, image)
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt()
        image = image - 0.02 * (1.0 - k / 20) * slope / size
    assert (energy(image) < 0.9 * before).all()


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
def text(tower, preprocessing) -> Text:
    torch.manual_seed(4)
    return Text(tower, preprocessing, torch.randn(2, 16), torch.ones(2), views=4)


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


def test_crops_follow_the_prompts_and_nothing_else(text, tower, preprocessing, image):
    first = in_third_step(text)(image)
    torch.rand(7)  # the global generator has no part in it
    assert torch.equal(in_third_step(text)(image), first)
    torch.manual_seed(5)
    other = Text(tower, preprocessing, torch.randn(2, 16), torch.ones(2), views=4)
    assert in_third_step(text)._crops.scales != in_third_step(other)._crops.scales


def test_a_run_leaves_the_energy_as_it_was(text, image):
    before = text(image)
    run = in_third_step(text)
    run(image)
    assert torch.equal(text(image), before)


def test_one_view_is_the_whole_picture(text, tower, preprocessing, image):
    whole = text.targets.distance(tower(preprocessing(image)))
    single = in_third_step(Text(tower, preprocessing, torch.randn(2, 16), torch.ones(2)))
    single.targets = text.targets
    assert torch.equal(single(image), whole)
    assert not torch.equal(in_third_step(text)(image), whole)
    finished = in_third_step(text)
    finished.begin_step(None)
    assert torch.equal(finished(image), whole)


def test_crops_lie_in_the_picture_and_reach_its_sides(preprocessing):
    """Each view of a picture whose colors are its coordinates says where it was taken."""
    height, width = 30, 90
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    places = torch.stack((x, y, torch.zeros_like(x)))[None]
    plain = Preprocessing((SIDE, SIDE), fit="crop")
    text = Text(lambda pixels: pixels, plain, torch.randn(1, 16), torch.ones(1), views=40)
    views = in_third_step(text)._crops(places, None, plain)
    extents = torch.stack([torch.stack((v[0, 0].min(), v[0, 0].max())) for v in views])
    assert views[0].shape == (1, 3, SIDE, SIDE)
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
def test_text_refuses(tower, preprocessing, arguments, message):
    with pytest.raises(ValueError, match=message):
        Text(tower, preprocessing, torch.randn(1, 16), torch.ones(1), **arguments)


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


def test_style_is_the_relative_squared_frobenius_distance(tower, preprocessing, image):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    seen, shown = (tower.features(preprocessing(x)) for x in (image, reference))
    for block in range(2):
        target = gram(shown[block])[0].numpy()
        for b in range(2):
            difference = gram(seen[block])[b].numpy() - target
            relative = np.linalg.norm(difference) / np.linalg.norm(target)
            expected[b] += relative**2 / 2
    torch.testing.assert_close(style(tower, preprocessing, reference)(image), expected)


def test_style_ignores_the_order_of_places():
    shuffled = torch.randn(1, 9, 4)
    energy = Style(lambda x: [x], Preprocessing(None), (gram(shuffled)[0],))
    order = torch.randperm(9)
    assert _relative(energy, shuffled[:, order]) < 1e-10


def _relative(energy: Style, tokens: Tensor) -> float:
    energy.network = lambda image: [tokens]
    return energy(torch.zeros(1, 3, 4, 4)).item()


def test_the_style_picture_has_its_own_style(tower, preprocessing):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    energy = style(tower, preprocessing, reference)
    assert energy(reference).item() < 1e-20
    assert energy(torch.rand_like(reference)).item() > 1e-4


def test_several_styles_are_averaged_with_weights(tower, preprocessing):
    references = torch.rand(2, 3, 40, 30, dtype=torch.float64)
    features = tower.features(preprocessing(references))
    for mean, feature in zip(mean_grams(features, torch.tensor([1.0, 3.0])), features, strict=True):
        first, second = gram(feature)
        torch.testing.assert_close(mean, (first + 3.0 * second) / 4.0)


def test_prompts_of_each_picture_are_judged_in_all_views(tower, preprocessing, image):
    targets = torch.randn(len(image), 1, 16, dtype=torch.float64)

    def text(targets: Tensor) -> Text:
        return Text(tower, preprocessing, targets, torch.ones(1), views=3).begin_run()

    together = text(targets)
    together.begin_step(0)
    cropped = together(image)
    together.begin_step(None)
    whole = together(image)
    assert cropped.shape == whole.shape == image.shape[:1]
    assert (cropped - whole).abs().min() > 0.0
    for b in range(len(image)):
        alone = text(targets[b])
        alone.begin_step(None)
        torch.testing.assert_close(alone(image[b : b + 1]), whole[b : b + 1])


def test_styles_may_be_those_of_each_picture(tower, preprocessing, image):
    references = torch.rand_like(image)
    targets = [gram(feature) for feature in tower.features(preprocessing(references))]
    together = Style(tower.features, preprocessing, targets)(image)
    for b in range(len(image)):
        own = [target[b] for target in targets]
        alone = Style(tower.features, preprocessing, own)(image[b : b + 1])
        torch.testing.assert_close(alone, together[b : b + 1])


@pytest.mark.parametrize("targets", [(), (torch.zeros(4, 4),)])
def test_style_refuses_blocks_without_activity(tower, preprocessing, targets):
    with pytest.raises(ValueError, match="^the chosen blocks do not respond"):
        Style(tower.features, preprocessing, targets)


# ---------------------------------------------------------------- image similarity


def test_a_reference_resembles_itself(tower, preprocessing):
    reference = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    energy = ImageSimilarity(tower, preprocessing, tower(preprocessing(reference)), torch.ones(1))
    assert abs(energy(reference).item()) < 1e-12
    assert energy(torch.rand_like(reference)).item() > 1e-4


def test_several_references_are_the_mean_of_their_distances(tower, preprocessing, image):
    references = tower(preprocessing(torch.rand(2, 3, 40, 30, dtype=torch.float64)))
    references[1] *= 10.0  # the length of an embedding has no part in it

    def energy(which, *weights):
        return ImageSimilarity(tower, preprocessing, references[which], torch.tensor(weights))

    first, second = energy([0], 1.0)(image), energy([1], 1.0)(image)
    torch.testing.assert_close(energy([0, 1], 1.0, 3.0)(image), (first + 3.0 * second) / 4.0)
