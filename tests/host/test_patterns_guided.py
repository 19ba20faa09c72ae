"""The demo model guided to patterns, by the preset `balanced`: an evaluator that did not guide sees
them, too. How the energies compute is tested elsewhere."""

import pytest
import torch
from skimage.measure import blur_effect
from torch import Tensor
from torch.nn import functional as F

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import (
    BrightnessMap,
    Perceptual,
    Pose,
    Seamless,
    Sharpness,
    Symmetry,
)
from zmagic.guidance.networks.lpips import BACKBONES, Lpips
from zmagic.guidance.poses.people import People
from zmagic.host.demo_model import (
    WOMAN_FILE,
    load_autoencoder,
    load_photograph,
    load_unet,
)
from zmagic.host.demo_networks import demo_landmarks, demo_locator, demo_parser
from zmagic.host.networks import Network
from zmagic.host.pose_networks import onnx_finder

from ..registry_packages import imported, package_folder
from .demo_sampling import sampled

pytestmark = pytest.mark.slow

STEPS, SIDE = 6, 16
ZXING = "zxing-cpp==3.1.1"


@pytest.fixture(scope="module")
def world():
    with torch.inference_mode():
        return load_unet(), load_autoencoder()


def guided(world, energy, strength: float, side: int = SIDE, steps=STEPS):
    """The picture ``[1, 3, H, W]`` and its energy."""
    condition = Condition("pattern", energy)
    pictures, trace = sampled(*world, condition, strength, steps=steps, side=side)
    return pictures, torch.tensor(trace.final["pattern"])


@pytest.fixture(scope="module")
def unguided(world):
    """The picture of the same noise under no condition."""
    return guided(world, Seamless(), 0.0)[0]


def test_a_tile_has_no_visible_seam(world, unguided):
    """The step across the seam is one as inside of the picture, and was many times that."""
    pictures, energies = guided(world, Seamless(), 0.2, steps=10)
    assert (energies < 0.1 * Seamless()(unguided)).all()
    for across in (-1, -2):
        before, after = (seam(each, across) for each in (unguided, pictures))
        assert (after < 0.5 * before).all() and (after < 4.0).all()  # before: 2.7 to 19


def seam(pictures: Tensor, axis: int) -> Tensor:
    """The mean step across the seam, in mean steps between neighbors: ``[B]``."""
    across = (pictures.select(axis, 0) - pictures.select(axis, -1)).abs().mean((1, 2))
    return across / pictures.diff(dim=axis).abs().mean((1, 2, 3))


def test_mirror_images_come_closer_pixel_by_pixel(world, unguided):
    """The energy compares through a blur; the evaluator does not."""
    pictures, energies = guided(world, Symmetry("left and right", blur=0.02), 0.3)
    assert (energies < 0.1 * Symmetry(blur=0.02)(unguided)).all()
    before, after = ((x - x.flip(-1)).abs().mean((1, 2, 3)) for x in (unguided, pictures))
    assert (after < 0.4 * before).all()


@pytest.mark.parametrize("target", [0.0, -0.9])
def test_another_measure_sees_it_sharper_or_softer(world, unguided, target):
    pictures, energies = guided(world, Sharpness(target), 0.2)
    assert (energies < 0.5 * Sharpness(target)(unguided)).all()
    blurs = [[blur_effect(x.numpy(), channel_axis=0) for x in p] for p in (unguided, pictures)]
    for before, after in zip(*blurs, strict=True):  # 0 is sharp, 1 blurred
        assert after < before - 0.05 if target == 0.0 else after > before + 0.05


def test_another_network_sees_the_likeness(world, unguided):
    """LPIPS on classifiers that learned nothing, of another architecture and seed each."""
    photograph = load_photograph().movedim(-1, 1)
    energy = Perceptual(random_lpips("SqueezeNet 1.1", 1), photograph)
    evaluator = Perceptual(random_lpips("AlexNet", 2), photograph)
    pictures, energies = guided(world, energy, 0.3)
    assert (energies < 0.85 * energy(unguided)).all()
    assert (evaluator(pictures) < 0.9 * evaluator(unguided)).all()


def random_lpips(kind: str, seed: int) -> Network:
    """LPIPS with random weights and heads."""
    backbone = BACKBONES[kind]
    with torch.inference_mode(False), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers = backbone.make().features[: backbone.taps[-1] + 1]
        heads = [torch.rand(channels) for channels in backbone.channels]
        return Network(Lpips(layers, backbone.taps, heads), kind)


@pytest.fixture(scope="module")
def read(pytestconfig):
    """What a reader of codes finds in a picture ``[3, H, W]``."""
    folder = package_folder(pytestconfig.zmagic_script("packages"), ZXING)
    reader = imported("zxingcpp", folder)

    def texts(picture: Tensor) -> list[str]:
        pixels = (picture.movedim(0, -1) * 255.0).byte().contiguous().numpy()
        return [found.text for found in reader.read_barcodes(pixels)]

    return texts


def test_a_reader_reads_the_code_in_the_picture(world, read):
    """A model of portraits alone makes a code of them."""
    side = 32  # of the latent: a square of the code is 10 pixels of the picture
    code = qr_code("ZMAGIC", 8 * side)
    assert read(code[0]) == ["ZMAGIC"]
    energy = BrightnessMap(code, blur=0.012, dark=0.1, bright=0.9)
    pictures, energies = guided(world, energy, 1.5, side=side, steps=10)
    plain, before = guided(world, energy, 0.0, side=side, steps=10)
    assert energies < 0.1 * before
    assert read(plain[0]) == []
    assert read(pictures[0]) == ["ZMAGIC"]


def qr_code(text: str, side: int) -> Tensor:
    """A QR code with its white border and the highest error correction: ``[1, 3, side, side]``."""
    cv2 = pytest.importorskip("cv2")
    highest = cv2.QRCodeEncoder_Params()
    highest.correction_level = cv2.QRCodeEncoder_CORRECT_LEVEL_H
    squares = torch.from_numpy(cv2.QRCodeEncoder.create(highest).encode(text)).float() / 255.0
    return F.interpolate(squares[None, None], size=(side, side)).expand(-1, 3, -1, -1).contiguous()


# Three classes of the demo's face parser.
LIPS, BROWS, EYES = 2, 3, 4
ASIDE = 12  # pixels of 128 by which the pose lies beside that of a portrait


def test_another_network_sees_the_pose(world, unguided):
    """The maps of a trained parser are heat maps of mouth, brows and eyes; the landmark network,
    which does not guide, sees the face come over."""
    finder = onnx_finder(demo_parser())
    portrait = load_photograph(WOMAN_FILE).movedim(-1, 1).float()
    aside = torch.cat((portrait[..., :ASIDE].flip(-1), portrait[..., :-ASIDE]), dim=-1)
    with torch.no_grad():
        points, _ = finder(aside)
    counts = torch.zeros(1, 1, finder.points)
    counts[..., [LIPS, BROWS, EYES]] = 1.0
    whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    energy = Pose(finder, People(points[:, None], counts, whole, 1.0))
    with torch.no_grad():
        plain = energy(unguided)
    pictures, energies = guided(world, energy, 0.4, steps=10)
    wanted, before, after = (face_place(each) for each in (aside, unguided, pictures))
    left = ((after - wanted).norm(dim=-1) / (before - wanted).norm(dim=-1)).tolist()
    print(f"energies {plain.tolist()} -> {energies.tolist()}, of the way are left {left}")
    assert (energies < 0.5 * plain).all() and max(left) < 0.7


def face_place(pictures: Tensor) -> Tensor:
    """The middle of eyes, nose and mouth as the landmark network finds them, in fractions."""
    found = demo_locator(demo_landmarks()).in_picture(pictures)
    return torch.cat([face.points for face in found]).mean(1)
