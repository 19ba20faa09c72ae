"""Small networks with random weights, in double precision, of every kind that energies run."""

from collections.abc import Callable

import open_clip
import torch
from torch import Tensor, nn

from zmagic.guidance.faces.networks import FaceRecognizer, LandmarkNetwork
from zmagic.guidance.networks.iresnet import IResNet
from zmagic.guidance.networks.lpips import BACKBONES, Lpips
from zmagic.guidance.networks.open_clip_towers import VisionBlocks
from zmagic.guidance.pictures.preprocessing import Preprocessing

__all__ = [
    "CLIP_VIEW",
    "FEATURES",
    "VIEW",
    "Convolutions",
    "blocks",
    "landmark_network",
    "lpips_network",
    "recognizer",
    "tower",
]

FEATURES = 16  # of an embedding

CLIP_VIEW = Preprocessing(
    (32, 32),
    open_clip.OPENAI_DATASET_MEAN,
    open_clip.OPENAI_DATASET_STD,
    fit="crop",
    interpolation="bicubic",
)
VIEW = Preprocessing((16, 16), (0.5,), (0.5,))

# Networks allow gradients, in whatever mode their energy is made.
AS_LOADERS_MAKE_THEM = torch.inference_mode(False)


@AS_LOADERS_MAKE_THEM
def frozen(make: Callable[[], nn.Module]) -> nn.Module:
    """The network that ``make`` returns: the same random weights in every call, without gradients.

    The random state of the test stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return make().eval().requires_grad_(False).double()


class Convolutions(nn.Module):
    """A smooth network of half the resolution.

    Args:
        outputs: how many features or classes it answers with.
        form: of the output: a "vector" ``[B, outputs]``, a "map" ``[B, outputs, h, w]`` or "tokens"
            ``[B, h * w, outputs]``.
        softmax: it ends in one.
        scale: of the weights' standard deviation.
    """

    @AS_LOADERS_MAKE_THEM
    def __init__(
        self, outputs: int, form: str = "map", *, softmax: bool = False, scale: float = 0.7
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, outputs, 3, 2, 1)
        )
        self.form, self.softmax = form, softmax
        self.double().requires_grad_(False)
        for parameter in self.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(scale * values)

    @property
    def networks(self) -> tuple[nn.Module]:
        """Return the networks that a parser of the segmentation energy runs on."""
        return (self,)

    def forward(self, view: Tensor) -> Tensor:
        """Maps or features of ``view [B, 3, h, w]``."""
        maps = self.layers(view)
        if self.form == "vector":
            maps = maps.mean((2, 3))
        maps = maps.softmax(1) if self.softmax else maps
        return maps.flatten(2).mT if self.form == "tokens" else maps


def tower() -> nn.Module:
    """Return open_clip's own vision transformer, from views of CLIP_VIEW to embeddings."""
    return frozen(
        lambda: open_clip.transformer.VisionTransformer(
            image_size=32,
            patch_size=8,
            width=32,
            layers=3,
            heads=4,
            mlp_ratio=2.0,
            output_dim=FEATURES,
        )
    )


def blocks() -> nn.Module:
    """The same tower up to the maps after its second and third block."""
    return VisionBlocks(tower(), (1, 2))


def recognizer() -> FaceRecognizer:
    """A network of the ArcFace kind, of crops of 32 pixels."""
    network = frozen(lambda: IResNet((1, 1, 1, 1), FEATURES, side=32, widths=(8, 8, 8, 8)))
    return FaceRecognizer(network, Preprocessing((32, 32), (0.5,), (0.5,)))


def landmark_network() -> LandmarkNetwork:
    """A network of 68 points, of crops of 16 pixels."""
    network = frozen(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(512, 2 * 68)
        )
    )
    return LandmarkNetwork(network, VIEW, 68)


def lpips_network() -> Lpips:
    """LPIPS of AlexNet up to its second map, with random heads."""
    alexnet = BACKBONES["AlexNet"]
    return frozen(
        lambda: Lpips(
            alexnet.make().features[:5],
            alexnet.taps[:2],
            [torch.rand(c) for c in alexnet.channels[:2]],
        )
    )
