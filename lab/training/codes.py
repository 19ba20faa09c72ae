"""What a latent of the demo model says: a coarse copy of the picture, and the details it lacks.

    python -m lab.training.codes --data FOLDER

The first four channels are those of a small autoencoder, coarse_autoencoder.safetensors, whose
copies are soft. The other twelve are what the copy lacks in each square of 8 x 8 pixels: its
principal components over the portraits for training. They vary less than the coarse channels, so
that noise hides them longer: a sampling decides on the picture before its details (Skorokhodov et
al., "Improving the Diffusability of Autoencoders", ICML 2025). So the latents are known before an
autoencoder of 16 channels is trained to make and to read them, and a diffusion model that knows the
coarse ones knows four channels of them already. The command finds the components and writes them
into details.safetensors.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..command_line import described
from .data import Portraits, read_portraits
from .running import write_whole
from .taesd import FACTOR, LATENT_CHANNELS, autoencoder_from

__all__ = ["CHANNEL_SPREAD", "Codes"]

COARSE = Path(__file__).with_name("coarse_autoencoder.safetensors")
DETAILS = Path(__file__).with_name("details.safetensors")
COLORS = 3
PART = 32  # pictures at once

# Standard deviation of each channel, about: of the coarse ones and of the details.
CHANNEL_SPREAD = (1.0,) * 4 + (0.4,) * (LATENT_CHANNELS - 4)


class Codes(nn.Module):
    """Latents by their definition, and pictures by the shortest way back.

    Args:
        components: ``[12, 3, 8, 8]`` orthonormal, of what a coarse copy lacks.
        spread: ``[12]``, the standard deviation of each in pictures.
    """

    def __init__(self, components: Tensor, spread: Tensor):
        super().__init__()
        self.coarse = autoencoder_from(load_file(COARSE)).eval().requires_grad_(False)
        self.coarse.to(memory_format=torch.channels_last)
        self.register_buffer("components", components)
        wanted = spread.new_tensor(CHANNEL_SPREAD[-len(spread) :])
        self.register_buffer("unit", (spread / wanted).view(-1, 1, 1))

    @classmethod
    def read(cls) -> "Codes":
        """The codes that the pack has."""
        kept = load_file(DETAILS)
        return cls(kept["components"].float(), kept["spread"].float())

    @torch.no_grad()
    def encoded(self, pictures: Tensor) -> Tensor:
        """Latents ``[B, 16, H/8, W/8]`` of pictures ``[B, 3, H, W]`` in [0, 1]."""
        coarse, lacking = lacks(self.coarse, pictures)
        details = F.conv2d(lacking, self.components, stride=FACTOR) / self.unit
        return torch.cat((coarse, details), 1)

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]``: the coarse copy with its details."""
        coarse, details = latents.tensor_split((-len(self.components),), 1)
        added = F.conv_transpose2d(details * self.unit, self.components, stride=FACTOR)
        return self.coarse.decoded(coarse).clamp(0.0, 1.0) + added


def main() -> None:
    parser = described("training.codes", __doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder that lab.training.portraits wrote."
    )
    components, spread = principal(read_portraits(parser.parse_args().data, "train"))
    kept = {"components": components, "spread": spread}
    write_whole(DETAILS, lambda new: save_file(kept, new))
    print(f"spread of the details: {', '.join(f'{value:.4f}' for value in spread.tolist())}")


@torch.no_grad()
def principal(portraits: Portraits) -> tuple[Tensor, Tensor]:
    """Components ``[12, 3, 8, 8]`` and spread ``[12]`` of what the coarse copies lack.

    Of the colorings of a sitting, the first one counts: the others lack the same edges.
    """
    coarse = autoencoder_from(load_file(COARSE)).eval()
    channels = coarse.taesd_decoder[1].weight.shape[1]
    sums, count = torch.zeros(()), 0
    for places in portraits.where("coloring", 0).nonzero().flatten().split(PART):
        _, lacking = lacks(coarse, portraits.pictures(places))
        squares = F.unfold(lacking, FACTOR, stride=FACTOR).transpose(1, 2).flatten(0, 1)
        sums, count = sums + squares.T @ squares, count + len(squares)
    variance, directions = torch.linalg.eigh(sums / count)
    largest = torch.arange(len(variance)).flip(0)[: LATENT_CHANNELS - channels]
    components = directions[:, largest].T.unflatten(1, (COLORS, FACTOR, FACTOR))
    return components.contiguous(), variance[largest].sqrt()


def lacks(coarse: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The coarse latents, and pictures minus their coarse copies."""
    latents = coarse.encoded(pictures)
    return latents, pictures - coarse.decoded(latents).clamp(0.0, 1.0)


if __name__ == "__main__":
    main()
