"""Train the demo model's UNet and its text encoder.

    python -m lab.training.diffusion --data FOLDER

Both are the host's own networks in the configurations of painter.py, trained together to predict
the noise in latents, as codes.py defines them, from what is said of a picture, with the noise
schedule of SD1.5. Some pictures are told nothing, so that the host's cfg works. It starts from the
weights in demo_models, as far as they fit, unless --fresh is given. Only the report needs others:
the autoencoder, and the evaluators' CLIP and recognizer.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from . import likeness
from .captions import some_of
from .codes import CHANNEL_SPREAD, Codes
from .data import Portraits, Variation, read_portraits, varied
from .painter import (
    KNOWN_WORDS,
    TEXT_CONFIG,
    WORD_VECTORS,
    Painter,
    Schedule,
    get_sigmas_karras,
    sample_dpmpp_2m,
    with_whole_vocabulary,
)
from .running import DEMO_MODELS, Run, bytes_of, kept, read_command_line, read_weights
from .sheets import save_sheet
from .taesd import LATENT_CHANNELS, Autoencoder, autoencoder_from
from .trainer import Trainer

MINUTES = 240.0
LEARNING_RATE = 6e-4
BATCH = 64

# Copies of each picture that are encoded, half of them mirrored; each is moved by whole pixels,
# which does not blur it, and its light is changed a little.
COPIES, MOVED = 2, 4
VARIATION = Variation(light=0.06)

# Sentences about each picture, drawn before the first step, and the share of pictures of a batch
# that are told nothing (Ho and Salimans, "Classifier-Free Diffusion Guidance", 2021).
SENTENCES, UNTOLD = 16, 0.1

# SD1.5's schedule: square roots of the betas are evenly spaced (Rombach et al., CVPR 2022).
LEVELS, FIRST_BETA, LAST_BETA = 1000, 0.00085, 0.012

# Errors count by the signal-to-noise ratio of their channel up to this (Hang et al., "Efficient
# Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023).
LARGEST_RATIO = 5.0

# How much the mean of a channel's error counts beside its pixels, of which it is a small part:
# norms hide means from the UNet, and what is left of the noise's tints a picture or patterns it.
MEAN_WEIGHT = 0.1

# Sizes of the report: steps and cfg of the sampler, samples of the sheet and of the figures.
STEPS, CFG, SHOWN, SAMPLES = 20, 3.0, 64, 512
PART = 64  # of the samples, at once

UNET, TEXT_ENCODER = "zmagic_demo_unet", "zmagic_demo_text_encoder"


def main() -> None:
    run = read_command_line("unet", __doc__, MINUTES, BATCH, has_evaluator=False)
    train = read_portraits(run.data, "train")
    autoencoder = autoencoder_from(load_file(autoencoder_file(run.out))).eval()
    autoencoder = autoencoder.to(run.device, memory_format=torch.channels_last)
    latents = kept_latents(run, Codes.read().to(run.device), train)
    told = tokens_of([some_of(label) for label in train.labels for _ in range(SENTENCES)])
    told = told.unflatten(0, (len(train), SENTENCES)).to(run.device)
    trainer = Trainer(run, _start(run), LEARNING_RATE, weight_decay=1e-2, averaging=0.999)
    painter = trainer.train(lambda: loss(trainer.module, latents, told, run.batch))
    write(run, painter, told)
    run.seeded()
    asked = read_portraits(run.data, "validation", "test").labels[:SAMPLES]
    tokens = tokens_of([label["caption"] for label in asked]).to(run.device)
    pictures = decoded(autoencoder, sampled(painter, tokens))
    save_sheet(run.file("_samples.png"), pictures[:SHOWN], columns=8)
    figures = {"pictures": len(train), **likeness.figures(pictures, asked, train, run)}
    trainer.write_report(figures)


def _start(run: Run) -> Painter:
    """The networks with what the pack's know: of words nothing, if it has no text encoder."""
    painter = Painter()
    run.started(painter.unet)
    words = DEMO_MODELS / f"{TEXT_ENCODER}.safetensors"
    if run.fresh or not words.is_file():
        for name, weights in painter.unet.named_parameters():
            if name.endswith("attn2.to_v.weight"):
                torch.nn.init.zeros_(weights)
        return painter
    _read_words(painter, words)
    return painter


def trained(run: Run) -> Painter:
    """The networks as they were written to the run's folder, or are in demo_models."""
    painter = Painter()
    folder = run.out if run.out and (run.out / f"{UNET}.safetensors").is_file() else DEMO_MODELS
    read_weights(painter.unet, folder / f"{UNET}.safetensors")
    _read_words(painter, folder / f"{TEXT_ENCODER}.safetensors")
    return painter.to(run.device, memory_format=torch.channels_last)


def _read_words(painter: Painter, path: Path) -> None:
    values = {key: value.float() for key, value in load_file(path).items()}
    painter.text.load_state_dict(with_whole_vocabulary(values))


def write(run: Run, painter: Painter, told: Tensor) -> None:
    """The files of UNet and text encoder; of all words, those of the captions ``told``."""
    run.write_weights(painter.unet)
    words = torch.cat((told.flatten(), untold().to(told.device).flatten())).unique()
    vectors = painter.text.state_dict()[WORD_VECTORS][words].half()
    known = {WORD_VECTORS: vectors, KNOWN_WORDS: words.int()}
    run.write_weights(painter.text, known, TEXT_ENCODER)


@cache
def _tokenizer() -> Callable[[Sequence[str]], Tensor]:
    """CLIP's tokenizer, which reads its whole vocabulary when it is made."""
    return open_clip.get_tokenizer("ViT-B-32")


@cache
def untold() -> Tensor:
    """The tokens ``[1, 77]`` of a picture of which nothing is said."""
    return tokens_of([""])


def tokens_of(texts: Sequence[str]) -> Tensor:
    """Tokens ``[N, 77]`` as the host's SD1.5 tokenizer gives them: padded with the end token."""
    end = TEXT_CONFIG["eos_token_id"]
    with torch.device("cpu"):  # tokens are written one by one
        tokens = _tokenizer()(list(texts))
    after = (tokens == end).cumsum(1) > 0
    return torch.where(after, end, tokens)


def autoencoder_file(out: Path | None) -> Path:
    """The autoencoder that was written to the same folder, else the one in demo_models."""
    name = "zmagic_demo_autoencoder.safetensors"
    return out / name if out and (out / name).is_file() else DEMO_MODELS / name


def signal_shares() -> Tensor:
    """Share of the variance that is signal at each of the schedule's levels, ``[1000]``."""
    roots = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, LEVELS, dtype=torch.float64)
    return (1.0 - roots.square()).cumprod(0).float()


def loss(painter: Painter, latents: Tensor, told: Tensor, batch: int) -> Tensor:
    """Squared error of the predicted noise in a random batch, of its pixels and of its means.

    Args:
        latents: ``[N COPIES, 16, h, w]``, the copies of a picture one after the other.
        told: ``[N, SENTENCES, 77]`` tokens.
    """
    places = torch.randint(len(latents), (batch,))
    tokens = told[places // COPIES, torch.randint(SENTENCES, (batch,))]
    tokens = torch.where(torch.rand(batch, 1) < UNTOLD, untold().to(tokens.device), tokens)
    clean, level = latents[places], torch.randint(LEVELS, (batch,))
    noise = torch.randn_like(clean)
    share = signal_shares()[level]
    found = painter(_mixed(clean, noise, share), level, tokens)
    variance = share.new_tensor(CHANNEL_SPREAD).square()[:, None, None]
    ratio = variance * (share / (1.0 - share))[:, None, None, None]
    error = found - noise
    # By the root of the number of pixels a mean of noise is as large as they are.
    means = error.mean((2, 3), keepdim=True) * noise[0, 0].numel() ** 0.5
    squares = error.square() + MEAN_WEIGHT * means.square()
    return (squares * (LARGEST_RATIO / ratio).clamp(max=1.0)).mean()


@torch.no_grad()
def sampled(painter: Painter, tokens: Tensor) -> Tensor:
    """Latents ``[N, 16, 16, 16]`` told by tokens ``[N, 77]``: the host's dpmpp_2m, with karras and
    cfg."""
    schedule = Schedule()
    sigmas = get_sigmas_karras(STEPS, schedule.sigma_min, schedule.sigma_max, device=tokens.device)

    def clean(x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        noisy, level = schedule.calculate_input(sigma, x), schedule.timestep(sigma).float()
        both = torch.cat((told, untold().to(told.device).expand_as(told)))
        with_text, without = painter(noisy.repeat(2, 1, 1, 1), level.repeat(2), both).chunk(2)
        return schedule.calculate_denoised(sigma, without + CFG * (with_text - without), x)

    return torch.cat(
        [
            sample_dpmpp_2m(
                partial(clean, told=part),
                torch.randn(len(part), LATENT_CHANNELS, 16, 16) * sigmas[0],
                sigmas,
                disable=True,
            )
            for part in tokens.split(PART)
        ]
    )


def kept_latents(run: Run, codes: Codes, portraits: Portraits) -> Tensor:
    """``encoded``, read from the work folder if it was done before."""
    names = json.dumps([COPIES, MOVED, *(label["id"] for label in portraits.labels)]).encode()
    file = run.checkpoint.with_name("latents.safetensors")
    made_of = (*bytes_of(codes), names)
    return kept(file, made_of, lambda: encoded(codes, portraits)).to(run.device)


@torch.no_grad()
def encoded(codes: Codes, portraits: Portraits) -> Tensor:
    """Latents ``[N COPIES, 16, 16, 16]`` of all pictures, the copies of one behind each other."""
    pictures = (part.float() / 255.0 for part in portraits.images.split(BATCH))
    copies = ([codes.encoded(_copied(part)) for _ in range(COPIES)] for part in pictures)
    return torch.cat([torch.stack(each, 1).flatten(0, 1) for each in copies])


def _copied(pictures: Tensor) -> Tensor:
    """The pictures changed as VARIATION says, and moved together by up to MOVED pixels."""
    pictures, _, _ = varied(pictures, VARIATION)
    side = pictures.shape[-1]
    top, left = torch.randint(2 * MOVED + 1, (2,), device="cpu").tolist()
    wide = F.pad(pictures, (MOVED,) * 4, mode="replicate")
    return wide[..., top : top + side, left : left + side]


@torch.no_grad()
def decoded(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Pictures ``[N, 3, 128, 128]`` in [0, 1]."""
    return torch.cat([autoencoder.decoded(part) for part in latents.split(PART)]).clamp(0.0, 1.0)


def _mixed(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    share = share.view(-1, 1, 1, 1)
    return share.sqrt() * clean + (1.0 - share).sqrt() * noise


if __name__ == "__main__":
    main()
