"""Train the demo model's UNet.

    python -m lab.training.diffusion --data FOLDER

It is the host's own UNetModel in the configuration of host/demo_model.py, trained to predict the
noise in the autoencoder's latents, with the noise schedule of SD1.5. It starts from the weights in
demo_models, if they are there, unless --fresh is given. Train the autoencoder first, and for the
distances in the report the evaluators' CLIP and recognizer.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.headless import load_host

load_host()

from comfy.ldm.modules.attention import attention_pytorch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402

from zmagic.host.demo_model import CONTEXT_WIDTH, UNET_CONFIG, DemoPortraits  # noqa: E402

from . import likeness  # noqa: E402
from .data import Portraits, Variation, read_portraits, varied  # noqa: E402
from .running import DEMO_MODELS, Run, Trainer, read_command_line, write_whole  # noqa: E402
from .sheets import save_sheet  # noqa: E402
from .taesd import LATENT_CHANNELS, Autoencoder, autoencoder_from  # noqa: E402

MINUTES = 240.0
LEARNING_RATE = 3e-4
BATCH = 32

# Copies of each picture that are encoded, half of them mirrored; each is moved by whole pixels,
# which does not blur it, and its light is changed a little.
COPIES, MOVED = 4, 4
VARIATION = Variation(light=0.06)

# SD1.5's schedule: square roots of the betas are evenly spaced (Rombach et al., CVPR 2022).
LEVELS, FIRST_BETA, LAST_BETA = 1000, 0.00085, 0.012

# Errors count by their signal-to-noise ratio up to this (Hang et al., "Efficient Diffusion Training
# via Min-SNR Weighting Strategy", ICCV 2023).
LARGEST_RATIO = 5.0

# Sizes of the report: steps of the sampler, samples of the sheet and of the distances.
STEPS, SHOWN, SAMPLES = 50, 64, 400
PART = 100  # of the samples, at once


class TrainingLayers:
    """PyTorch's layers under the names that the host's model asks for: with initial values."""

    Conv1d, Conv2d, Conv3d = nn.Conv1d, nn.Conv2d, nn.Conv3d
    Linear, Embedding, GroupNorm, LayerNorm = nn.Linear, nn.Embedding, nn.GroupNorm, nn.LayerNorm

    @staticmethod
    def conv_nd(dimensions: int, *arguments, **options) -> nn.Module:
        return {2: nn.Conv2d, 3: nn.Conv3d}[dimensions](*arguments, **options)


def main() -> None:
    run = read_command_line("unet", __doc__, MINUTES, "fresh", BATCH)
    train = read_portraits(run.data, "train")
    autoencoder = autoencoder_from(load_file(autoencoder_file(run.out))).eval()
    autoencoder = autoencoder.to(run.device, memory_format=torch.channels_last)
    latents = kept_latents(run, autoencoder, train)
    weights = DEMO_MODELS / f"{run.title}.safetensors"
    unet = empty_unet()
    if weights.is_file() and not run.fresh:
        unet.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    trainer = Trainer(run, unet, LEARNING_RATE, weight_decay=1e-4, averaging=0.999)
    network = trainer.train(lambda: loss(trainer.module, latents, run.batch))
    run.write_weights(network)
    run.seeded()
    pictures = decoded(autoencoder, sampled(network, SAMPLES))
    save_sheet(run.file("_samples.png"), pictures[:SHOWN], columns=8)
    figures = {"pictures": len(train), **likeness.figures(pictures, train, run)}
    run.write_report(trainer, figures)


def autoencoder_file(out: Path | None) -> Path:
    """The autoencoder that was written to the same folder, else the one in demo_models."""
    name = "zmagic_demo_autoencoder.safetensors"
    return out / name if out and (out / name).is_file() else DEMO_MODELS / name


def empty_unet() -> nn.Module:
    """The host's network, starting as the identity: branches end in zeros."""
    unet = UNetModel(
        **UNET_CONFIG,
        **DemoPortraits.unet_extra_config,
        dtype=torch.float32,
        device="cpu",
        operations=TrainingLayers,
    )
    for name, module in unet.named_modules():
        if name.endswith(("proj_out", "out_layers.3")) or name == "out.2":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


def signal_shares() -> Tensor:
    """Share of the variance that is signal at each of the schedule's levels, ``[1000]``."""
    roots = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, LEVELS, dtype=torch.float64)
    return (1.0 - roots.square()).cumprod(0).float()


def loss(unet: nn.Module, latents: Tensor, batch: int) -> Tensor:
    """Squared error of the predicted noise in a random batch."""
    clean = latents[torch.randint(len(latents), (batch,))]
    level = torch.randint(LEVELS, (batch,))
    noise = torch.randn_like(clean)
    share = signal_shares()[level]
    noisy = _mixed(clean, noise, share)
    error = (predicted_noise(unet, noisy, level) - noise).square().flatten(1).mean(1)
    ratio = share / (1.0 - share)
    return (error * (LARGEST_RATIO / ratio).clamp(max=1.0)).mean()


def predicted_noise(unet: nn.Module, noisy: Tensor, level: Tensor) -> Tensor:
    """The network's answer for latents ``[B, 4, h, w]`` at levels ``[B]``."""
    context = torch.zeros(len(noisy), 1, CONTEXT_WIDTH)
    options = {"optimized_attention_override": _fused_attention}
    return unet(noisy, level.float(), context=context, transformer_options=options).float()


def _fused_attention(_, *arguments, **options) -> Tensor:
    """Run PyTorch's attention: what the host takes on a CPU saves memory, not time."""
    return attention_pytorch(*arguments, **options)


@torch.no_grad()
def sampled(unet: nn.Module, count: int) -> Tensor:
    """Latents ``[count, 4, 16, 16]`` by DDIM without noise (Song et al., ICLR 2021)."""
    shares = signal_shares()
    levels = torch.linspace(LEVELS - 1, 0, STEPS).round().long()
    parts = []
    for start in torch.randn(count, LATENT_CHANNELS, 16, 16).split(PART):
        x = start
        for level, after in zip(levels, [*levels[1:], None], strict=True):
            noise = predicted_noise(unet, x, level.expand(len(x)))
            share = shares[level]
            clean = (x - (1.0 - share).sqrt() * noise) / share.sqrt()
            x = clean if after is None else _mixed(clean, noise, shares[after].expand(len(x)))
        parts.append(x)
    return torch.cat(parts)


def kept_latents(run: Run, autoencoder: Autoencoder, portraits: Portraits) -> Tensor:
    """``encoded``, which takes minutes, read from the work folder if it was done before."""
    weights = b"".join(v.cpu().numpy().tobytes() for v in autoencoder.state_dict().values())
    names = json.dumps([COPIES, MOVED, *(label["id"] for label in portraits.labels)]).encode()
    file = run.checkpoint.with_name("latents.safetensors")
    key = hashlib.sha256(weights + names).hexdigest()
    if file.is_file() and (kept := load_file(file)).keys() == {key}:
        return kept[key].to(run.device)
    latents = encoded(autoencoder, portraits)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda new: save_file({key: latents.contiguous()}, new))
    return latents


@torch.no_grad()
def encoded(autoencoder: Autoencoder, portraits: Portraits) -> Tensor:
    """Latents of the copies of all pictures, ``[COPIES N, 4, 16, 16]``."""
    pictures = (part.float() / 255.0 for part in portraits.images.split(BATCH))
    return torch.cat(
        [autoencoder.encoded(_copied(part)) for part in pictures for _ in range(COPIES)]
    )


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
