"""Fit the linear preview of the demo latents.

    python -m lab.training.latent_colors --data FOLDER

Prints what ``host/demo_model.py`` has as the factors and the bias of its latent format: the host
makes previews with them. Least squares from the latents of the training portraits, in the scale of
the UNet, to the mean colors that each latent's square of the picture has.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ..command_line import described
from .data import read_portraits
from .metrics import psnr
from .running import DEMO_MODELS
from .taesd import FACTOR, Autoencoder, autoencoder_from

BATCH = 32
MOST = 256  # pictures of a split; so few numbers need no more


def main() -> None:
    parser = described("training.latent_colors", __doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder that lab.training.portraits wrote."
    )
    folder = parser.parse_args().data
    weights = load_file(DEMO_MODELS / "zmagic_demo_autoencoder.safetensors")
    network = autoencoder_from(weights)
    factors, bias = fitted(*_latents_and_colors(network, _pictures(folder, "train")))
    latents, colors = _latents_and_colors(network, _pictures(folder, "test"))
    preview = torch.einsum("bchw,cr->brhw", latents, factors) + bias[:, None, None]
    quality = psnr((preview + 1.0) / 2.0, (colors + 1.0) / 2.0).mean()
    print("factors:", [[round(value, 4) for value in row] for row in factors.tolist()])
    print("bias:", [round(value, 4) for value in bias.tolist()])
    print(f"PSNR of previews of the test portraits: {quality:.1f} dB")


def fitted(latents: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
    """``factors [C, 3]`` and ``bias [3]`` with ``colors`` about ``latents @ factors + bias``.

    Args:
        latents: ``[N, C, h, w]``.
        colors: ``[N, 3, h, w]`` in [-1, 1].
    """
    rows = latents.movedim(1, -1).flatten(0, -2)
    rows = torch.cat((rows, torch.ones_like(rows[:, :1])), 1)
    solution = torch.linalg.lstsq(rows.double(), colors.movedim(1, -1).flatten(0, -2).double())
    return solution.solution[:-1].float(), solution.solution[-1].float()


def _pictures(folder: Path, split: str) -> Tensor:
    portraits = read_portraits(folder, split)
    return portraits.pictures(slice(None, None, -(-len(portraits) // MOST)))


@torch.no_grad()
def _latents_and_colors(network: Autoencoder, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Latents in the scale of the UNet, and the colors of their squares in [-1, 1]."""
    latents = torch.cat([network.encoded(part) for part in pictures.split(BATCH)])
    return latents, F.avg_pool2d(pictures, FACTOR) * 2.0 - 1.0


if __name__ == "__main__":
    main()
