"""Train the demo model's autoencoder.

    python -m lab.training.autoencoder --data FOLDER

It starts from the weights in demo_models, if they are there, unless --fresh is given. Crops of 64
pixels are enough: nothing in a latent reaches further. The loss is that of pixels, of their
differences, which keep edges sharp, and of the mean colors of patches; eyes, brows and lips count
more than their few pixels would.

Latents shall be easy for a diffusion model: of unit variance, and moved and scaled as the picture
is. Some steps therefore decode latents that were halved in size, or moved by half a cell, and
compare with the picture changed alike (after Kouzelis et al., "EQ-VAE: Equivariance Regularized
Latent Space for Improved Generative Image Modeling", ICML 2025). The first channels stay those of
the autoencoder it starts from, so that the diffusion model has a start, too.
"""

from functools import partial

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from .data import CLASSES, Portraits, Variation, read_portraits, varied
from .metrics import psnr
from .running import DEMO_MODELS, Run, read_command_line
from .sheets import save_sheet
from .taesd import FACTOR, SCALING, Autoencoder, autoencoder_from
from .trainer import Trainer

MINUTES = 120.0
LEARNING_RATE = 4e-4
BATCH, CROP = 8, 64
VARIATION = Variation(scale=0.1, roll=0.05, light=0.1)

# How much more an error counts where a face is recognized by it.
DETAILS = ("eyes", "brows", "lips")
DETAIL_WEIGHT = 6.0

# Weight of the mean error in a cell of the latent: without it the numbers of a cell go to edges
# rather than to the colors of clothes and hats.
COLOR_WEIGHT = 2.0

# Noise in the latent that the decoder must bear, and the largest number without a penalty.
LATENT_NOISE, LATENT_LIMIT = 0.1, 2.5

# Share of the pictures in other colors, and how much darker a color becomes at most.
RECOLORED, DARKENED = 0.3, 0.5

# Weight of the difference to the channels of the autoencoder it starts from.
KEPT_WEIGHT = 0.3

# Share of the steps that decode halved latents, and latents moved by half a cell.
HALVED, MOVED = 0.15, 0.1

SHOWN = 12


def main() -> None:
    run = read_command_line("autoencoder", __doc__, MINUTES, BATCH, has_evaluator=False)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    trainer = Trainer(run, run.started(Autoencoder()), LEARNING_RATE, averaging=0.999)
    step = partial(loss, trainer.module, train, run.batch, first_of(run))
    network = trainer.train(step)
    run.write_weights(network, SCALING)
    trainer.write_report(evaluated(network, held_out, run))


def first_of(run: Run) -> Autoencoder | None:
    """The autoencoder in demo_models, frozen, whose channels are kept; None: from none."""
    path = DEMO_MODELS / f"{run.title}.safetensors"
    if run.fresh or not path.is_file():
        return None
    first = autoencoder_from(load_file(path)).eval().requires_grad_(False)
    return first.to(run.device, memory_format=torch.channels_last)


def loss(
    network: Autoencoder, portraits: Portraits, batch: int, first: Autoencoder | None
) -> Tensor:
    """The loss of a random batch."""
    places = portraits.drawn(batch)
    pictures, _, classes = varied(
        portraits.pictures(places), VARIATION, classes=portraits.classes[places]
    )
    pictures, classes = _crop(_recolored(pictures), classes)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    latents = network.encoded(pictures).float()
    shape = _shape_of(latents)
    if first is not None:
        kept = first.encoded(pictures).float()
        shape = shape + KEPT_WEIGHT * (latents[:, : kept.shape[1]] - kept).square().mean()
    latents, pictures, classes = _changed_alike(latents, pictures, classes)
    result = network.decoded(latents + LATENT_NOISE * torch.randn_like(latents)).float()
    numbers = torch.tensor([CLASSES.index(name) for name in DETAILS])
    weight = 1.0 + (DETAIL_WEIGHT - 1.0) * torch.isin(classes, numbers)[:, None]
    error = result - pictures
    pixels = ((error.abs() + 2.0 * error.square()) * weight).mean()
    edges = sum((error.diff(dim=axis).abs()).mean() for axis in (2, 3))
    colors = F.avg_pool2d(error, FACTOR).abs().mean()
    return pixels + 0.5 * edges + COLOR_WEIGHT * colors + shape


def evaluated(network: Autoencoder, portraits: Portraits, run: Run) -> dict:
    """Figures on people it was not trained on, and a sheet of originals above their copies."""
    pictures = portraits.pictures()
    copies = reconstructed(network, pictures)
    classes = {name: portraits.classes == CLASSES.index(name) for name in CLASSES}
    dark = classes["skin"] & portraits.where("race", "african")[:, None, None]
    shown = slice(0, SHOWN)
    save_sheet(
        run.file("_copies.png"), torch.cat((pictures[shown], copies[shown])), SHOWN, enlarged=2
    )
    return {
        "held-out pictures": len(portraits),
        "psnr": _mean(psnr(copies, pictures)),
        "psnr of eyes": _mean(psnr(copies, pictures, classes["eyes"])),
        "psnr of lips": _mean(psnr(copies, pictures, classes["lips"])),
        "psnr of dark skin": _mean(psnr(copies, pictures, dark)),
    }


@torch.no_grad()
def reconstructed(network: Autoencoder, pictures: Tensor) -> Tensor:
    """The copies in single precision, as the host makes them, in 8 bits as they are looked at."""
    copies = [network.decoded(network.encoded(part)) for part in pictures.split(BATCH)]
    return (torch.cat(copies).clamp(0.0, 1.0) * 255.0).round() / 255.0


def _crop(pictures: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The same random square of all, on the grid of the latents; faces are in the middle."""
    last = (pictures.shape[-1] - CROP) // FACTOR
    top, left = (FACTOR * int(torch.rand(2, device="cpu").mean() * (last + 1)) for _ in range(2))
    rows, columns = slice(top, top + CROP), slice(left, left + CROP)
    return pictures[..., rows, columns], classes[..., rows, columns]


def _recolored(pictures: Tensor) -> Tensor:
    """Some of the pictures with red, green and blue exchanged and each made darker.

    Most colors of a portrait can be guessed from what is around them: skin, hair, lips. A network
    that is never surprised learns to guess, and clothes get the colors of others.
    """
    count = len(pictures)
    order = torch.rand(count, 3).argsort(1)[..., None, None].expand_as(pictures)
    gain = 1.0 - DARKENED * torch.rand(count, 3, 1, 1)
    changed = torch.rand(count, 1, 1, 1) < RECOLORED
    return torch.where(changed, pictures.gather(1, order) * gain, pictures)


def _shape_of(latents: Tensor) -> Tensor:
    """Latents shall look like the noise that a diffusion model starts from, and be bounded."""
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    far = F.relu(latents.abs() - LATENT_LIMIT).mean()
    return 1e-2 * (mean.square().mean() + (spread - 1.0).square().mean()) + 1e-3 * far


def _changed_alike(
    latents: Tensor, pictures: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents and what they show, now and then halved in size or moved by half a cell."""
    chance = float(torch.rand((), device="cpu"))
    if chance < HALVED:
        return F.avg_pool2d(latents, 2), F.avg_pool2d(pictures, 2), classes[:, ::2, ::2]
    if chance < HALVED + MOVED:
        half = FACTOR // 2
        moved = (latents[..., 1:] + latents[..., :-1]) / 2.0
        inside = slice(half, pictures.shape[-1] - half)
        return moved, pictures[..., inside], classes[..., inside]
    return latents, pictures, classes


def _mean(values: Tensor) -> float:
    return round(float(values.nanmean()), 2)


if __name__ == "__main__":
    main()
