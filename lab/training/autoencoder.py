"""Train the demo model's autoencoder.

    python -m lab.training.autoencoder --data FOLDER

What a latent says is known before: codes.py defines it. The encoder learns to say it, the decoder
to read it, and neither needs the other. It starts from the weights in demo_models, if they are
there, unless --fresh is given. Crops of 64 pixels are enough: nothing in a latent reaches further.
The loss of copies is that of pixels, of their differences, which keep edges sharp, and of the mean
colors of patches; eyes, brows and lips count more than their few pixels would.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .codes import CHANNEL_SPREAD, Codes
from .data import CLASSES, Portraits, Variation, read_portraits, varied
from .metrics import psnr
from .running import Run, read_command_line
from .sheets import save_sheet
from .taesd import FACTOR, SCALING, Autoencoder
from .trainer import Trainer

MINUTES = 120.0
LEARNING_RATE = 4e-4
BATCH, CROP = 8, 64
# Neither turned nor scaled, which would make the pictures softer than those of the tests.
VARIATION = Variation(light=0.1)

# How much more an error counts where a face is recognized by it.
DETAILS = ("eyes", "brows", "lips")
DETAIL_WEIGHT = 6.0

# Weight of the mean error in a cell of the latent: without it the numbers of a cell go to edges
# rather than to the colors of clothes and hats.
COLOR_WEIGHT = 2.0

# The most noise in a latent that the decoder must bear without being told how much there is, since
# a sampler's latents are never quite clean, and weight of the encoder's error.
LATENT_NOISE, ENCODER_WEIGHT = 0.15, 0.2

# Share of the pictures in other colors, and how much darker a color becomes at most.
RECOLORED, DARKENED = 0.3, 0.5

SHOWN = 12


def main() -> None:
    run = read_command_line("autoencoder", __doc__, MINUTES, BATCH, has_evaluator=False)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    trainer = Trainer(run, run.started(Autoencoder()), LEARNING_RATE, averaging=0.999)
    codes = Codes.read().to(run.device)
    network = trainer.train(partial(loss, trainer.module, codes, train, run.batch))
    run.write_weights(network, SCALING)
    trainer.write_report(evaluated(network, held_out, run))


def loss(network: Autoencoder, codes: Codes, portraits: Portraits, batch: int) -> Tensor:
    """The loss of a random batch."""
    places = portraits.drawn(batch)
    pictures, _, classes = varied(
        portraits.pictures(places), VARIATION, classes=portraits.classes[places]
    )
    pictures, classes = _crop(_recolored(pictures), classes)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    wanted = codes.encoded(pictures).float()
    spread = torch.tensor(CHANNEL_SPREAD)[:, None, None]
    said = ((network.encoded(pictures).float() - wanted) / spread).square().mean()
    noise = LATENT_NOISE * torch.rand(len(wanted), 1, 1, 1) * torch.randn_like(wanted)
    result = network.decoded(wanted + noise).float()
    numbers = torch.tensor([CLASSES.index(name) for name in DETAILS])
    weight = 1.0 + (DETAIL_WEIGHT - 1.0) * torch.isin(classes, numbers)[:, None]
    error = result - pictures
    pixels = ((error.abs() + 2.0 * error.square()) * weight).mean()
    edges = sum((error.diff(dim=axis).abs()).mean() for axis in (2, 3))
    colors = F.avg_pool2d(error, FACTOR).abs().mean()
    return pixels + 0.5 * edges + COLOR_WEIGHT * colors + ENCODER_WEIGHT * said


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
    """The same random square of all; faces are in the middle."""
    room = pictures.shape[-1] - CROP + 1
    top, left = (int(torch.rand(2, device="cpu").mean() * room) for _ in range(2))
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


def _mean(values: Tensor) -> float:
    return round(float(values.nanmean()), 2)


if __name__ == "__main__":
    main()
