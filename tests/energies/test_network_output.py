"""The energy of any network's output, against independent computations and real networks."""

import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from zmagic.guidance.energies import FaceOutput, NetworkOutput
from zmagic.guidance.energies.network_output import class_target, features_first, value_target
from zmagic.guidance.faces.crops import Faces, box_crops
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.networks import load_onnx
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.preprocessing import Preprocessing

from .derivatives import gradient
from .small_networks import VIEW, Convolutions

SIZE = (20, 24)
FEATURES = 5
FORMS = ("vector", "map", "tokens")
DISTANCES = ("squared error", "cosine", "cross entropy")


def network_of(form: str, *, softmax: bool = False) -> Convolutions:
    """A network whose scores are too small to make any class certain."""
    return Convolutions(FEATURES, form, softmax=softmax, scale=0.3)


def energy_of(form: str, distance: str, picture: Tensor, **options) -> NetworkOutput:
    """The energy whose target is what the network says of a picture."""
    network = network_of(form, **options)
    target = features_first(network(VIEW(picture)))
    scores = ClassScores.inferred(target)
    if distance == "cross entropy":
        target = scores.probabilities(target)
    return NetworkOutput(network, VIEW, target, distance, scores)


@pytest.fixture(params=[(form, distance) for form in FORMS for distance in DISTANCES], ids=str)
def energy(request, picture) -> NetworkOutput:
    return energy_of(*request.param, picture)


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(1, 3, *SIZE, dtype=torch.float64)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


def region() -> Tensor:
    """Return a region that is white in a window, black elsewhere."""
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    mask[..., 4:16, 9:20] = 1.0
    return mask


def test_perfect_match_is_the_minimum(energy, picture, image):
    assert energy(picture).abs().item() < 1e-12
    assert gradient(energy, picture).abs().max() < 1e-9
    assert (energy(image) > 1e-5).all()


def test_a_region_is_cropped_and_moves_alone(energy, image):
    mask = region()
    slope = gradient(energy, image, mask)
    assert not slope[(mask == 0.0).expand_as(slope)].any() and slope.abs().max() > 0.0
    elsewhere = torch.where(mask > 0.0, image, torch.rand_like(image))
    elsewhere[..., 2:18, 4:24] = image[..., 2:18, 4:24]  # what lies in the grown box stays
    torch.testing.assert_close(energy(elsewhere, mask), energy(image, mask))
    assert not torch.allclose(energy(image, mask), energy(image))


def test_whole_and_empty_regions(energy, image):
    whole = torch.ones(1, 1, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(energy(image, whole), energy(image))
    assert energy(image, 0.0 * whole).isfinite().all()
    assert not gradient(energy, image, 0.0 * whole).any()


@pytest.mark.parametrize("form", FORMS)
def test_distances_are_torchs(form, image, picture):
    network = network_of(form)
    found, wanted = (features_first(network(VIEW(x))) for x in (image, picture))
    for b in range(2):
        one = found[b : b + 1]
        squared = F.mse_loss(one, wanted)
        torch.testing.assert_close(energy_of(form, "squared error", picture)(image)[b], squared)
        cosine = (1.0 - F.cosine_similarity(one, wanted)).mean()
        torch.testing.assert_close(energy_of(form, "cosine", picture)(image)[b], cosine)
        target = class_target(3, FEATURES, found)
        energy = NetworkOutput(network, VIEW, target, "cross entropy", ClassScores(FEATURES, False))
        expected = F.cross_entropy(one, torch.full((1, *one.shape[2:]), 3))
        torch.testing.assert_close(energy(image)[b], expected)


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_do_not_get_a_second_softmax(form, image):
    outputs = features_first(network_of(form, softmax=True)(VIEW(image)))
    target = class_target(1, FEATURES, outputs)
    values = [
        NetworkOutput(
            network_of(form, softmax=softmax),
            VIEW,
            target,
            "cross entropy",
            ClassScores(FEATURES, softmax),
        )(image)
        for softmax in (False, True)
    ]
    assert ClassScores.inferred(outputs).are_probabilities
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-4)


def test_values(image):
    outputs = network_of("vector")(VIEW(image))
    numbers = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for given in (numbers, torch.tensor([7.0])):
        energy = NetworkOutput(network_of("vector"), VIEW, value_target(given, outputs))
        expected = (outputs - given).square().mean(1)
        torch.testing.assert_close(energy(image), expected)
    scalar = NetworkOutput(
        lambda view: view.mean((1, 2, 3)), VIEW, value_target(numbers[:1], outputs[:, :1])
    )
    expected = (VIEW(image).mean((1, 2, 3)) - 1.0).square()
    torch.testing.assert_close(scalar(image), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: value_target(torch.ones(3), torch.rand(1, 5)),
            "expected 1 or 5 numbers for an output of 5, got 3",
        ),
        (
            lambda: value_target(torch.ones(3), torch.rand(1, 1)),
            "expected 1 number for an output of 1, got 3",
        ),
        (
            lambda: class_target(5, 5, torch.rand(1, 5)),
            "expected a class 0 to 4 for this output, got 5",
        ),
        (
            lambda: NetworkOutput(network_of("map"), VIEW, torch.rand(1, 5), "euclidean"),
            "distance must be one of squared error, cosine, cross entropy",
        ),
        (
            lambda: NetworkOutput(network_of("map"), VIEW, torch.rand(1, 5), "cross entropy"),
            "cross entropy needs class scores",
        ),
    ],
)
def test_explanations(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_references_and_images_must_match(image):
    pictures = torch.rand(3, 3, *SIZE, dtype=torch.float64)
    energy = energy_of("vector", "cosine", pictures)
    assert energy(torch.rand(3, 3, *SIZE, dtype=torch.float64)).shape == (3,)
    with pytest.raises(ValueError, match="holds 3 pictures, expected 1 or the batch size 2"):
        energy(image)


# ---------------------------------------------------------------- faces


def test_a_face_is_cropped_and_followed(image):
    faces = Faces.from_boxes(torch.tensor([[0.3, 0.2, 0.7, 0.8]]))
    inner = energy_of("vector", "squared error", torch.rand(1, 3, *SIZE, dtype=torch.float64))
    energy = FaceOutput(inner, FaceLocator(fixed=faces), margin=1.2)
    crops, _ = box_crops(image, faces, 16, 1.2)
    for running in (energy, energy.begin_run()):
        running.begin_step(0)
        torch.testing.assert_close(running(image), inner(crops))
    slope = gradient(energy, image)
    assert slope[..., 10, 12].abs().max() > 0.0 and not slope[..., :2].any()
    assert not gradient(energy, image, 0.0 * region()).any()


def test_descent_on_pixels_raises_a_real_networks_class(face_networks):
    """A network of three classes (photographs, masks, screens) sees a photographed face."""
    network = load_onnx(face_networks / "fr_liveness.onnx")
    preprocessing = Preprocessing((128, 128), std=(1 / 255,))
    photograph = torch.from_numpy(skimage.data.astronaut()[:256, 100:356].copy())
    image = photograph.movedim(-1, 0)[None].float() / 255.0
    with torch.no_grad():
        scores = network(preprocessing(image))[0]
    chosen = scores.argmin().item()
    assert ClassScores.inferred(scores) == ClassScores(3, False)
    target = class_target(chosen, 3, scores)
    energy = NetworkOutput(network, preprocessing, target, "cross entropy", ClassScores(3, False))
    before = energy(image).item()
    for _ in range(5):
        slope = gradient(energy, image)
        image = image - 0.02 * slope / slope.square().mean().sqrt()
    assert energy(image).item() < 0.5 * before
