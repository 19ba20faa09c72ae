"""The tiny autoencoder in the layout of TAESD (Ollin Boer Bohan, 2023), which hosts load as a VAE.

Its latents have 16 channels, as those of the tiny autoencoders for SD3 and Flux.

The host's own class is made for loading: its layers come without initial values.
"""

import torch
from torch import Tensor, nn

__all__ = ["FACTOR", "LATENT_CHANNELS", "SCALING", "Autoencoder", "autoencoder_from"]

LATENT_CHANNELS, WIDTH = 16, 64

# Sides of the picture divided by those of its latent.
FACTOR = 8

# What the host reads beside the weights: its latents are this network's.
SCALING = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}


class _Bounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3.0) * 3.0


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Autoencoder(nn.Module):
    """Pictures ``[B, 3, H, W]`` in [0, 1] to latents ``[B, C, H/8, W/8]`` and back."""

    def __init__(self, channels: int = LATENT_CHANNELS):
        super().__init__()
        self.taesd_encoder = nn.Sequential(_conv(3, WIDTH), _Block())
        for _ in range(3):
            self.taesd_encoder.extend(
                [_conv(WIDTH, WIDTH, stride=2, bias=False), _Block(), _Block(), _Block()]
            )
        self.taesd_encoder.append(_conv(WIDTH, channels))
        self.taesd_decoder = nn.Sequential(_Bounded(), _conv(channels, WIDTH), nn.ReLU())
        for _ in range(3):
            self.taesd_decoder.extend([_Block(), _Block(), _Block(), nn.Upsample(scale_factor=2)])
            self.taesd_decoder.append(_conv(WIDTH, WIDTH, bias=False))
        self.taesd_decoder.extend([_Block(), _conv(WIDTH, 3)])

    def encoded(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)

    def decoded(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)


def autoencoder_from(weights: dict[str, Tensor]) -> Autoencoder:
    """The network with the weights of a file, in float32; they say how many channels it has."""
    network = Autoencoder(weights["taesd_decoder.1.weight"].shape[1])
    network.load_state_dict(
        {key: value.float() for key, value in weights.items() if not key.startswith("vae_")}
    )
    return network


def _conv(width_in: int, width: int, **options) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, padding=1, **options)
