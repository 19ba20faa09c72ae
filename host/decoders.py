"""Decoders for guidance: from the predicted clean latent to an image, with a gradient.

By price: the latent's linear RGB factors, a tiny approximate decoder (TAESD), the VAE itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import comfy.sd
import folder_paths
import torch
from comfy.latent_formats import LatentFormat
from torch import Tensor

__all__ = ["DECODERS", "Decoder", "choose_decoder"]

DECODERS = ("auto", "vae", "taesd", "linear_rgb")


@dataclass(frozen=True)
class Decoder:
    """``decode(process_latent_out, latent) -> image [B, 3, H, W]`` and the patchers it runs on.

    Args:
        name: what the report calls the decoder.
        decode: takes the model's ``process_latent_out`` and a latent on the model's own scale.
        patchers: the ModelPatchers that the host has to load together with the diffusion model.
    """

    name: str
    decode: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    patchers: tuple = ()


def choose_decoder(kind: str, vae: comfy.sd.VAE | None, latent_format: LatentFormat) -> Decoder:
    """Make the decoder of that kind for a model with that latent format.

    ``auto`` takes the connected VAE, else the model's TAESD if its files are installed, else the
    linear RGB factors.

    Raises:
        ValueError: the kind needs something that is not connected, not installed or not known
            for this model; the message names it.
    """
    if kind not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {kind!r}")
    if kind == "vae" or (kind == "auto" and vae is not None):
        if vae is None:
            raise ValueError("decoder 'vae' needs a VAE at the input 'vae', got none")
        return _vae_decoder("vae", vae, latent_format)
    if kind == "taesd" or (kind == "auto" and not _missing_taesd(latent_format)):
        return _taesd_decoder(latent_format)
    return _linear_decoder(latent_format)


def _vae_decoder(name: str, vae: comfy.sd.VAE, latent_format: LatentFormat) -> Decoder:
    if vae.latent_channels != latent_format.latent_channels:
        raise ValueError(
            f"the VAE has {vae.latent_channels} latent channels, but the model works with "
            f"{latent_format.latent_channels}: connect the VAE that belongs to this model"
        )

    def decode(process_latent_out: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
        latent = process_latent_out(latent)
        if vae.latent_dim == 3 and latent.ndim == 4:
            latent = latent.unsqueeze(2)
        # As VAE.decode does, without its preallocated output, which would cut the gradient;
        # process_output works in place, hence the clone.
        pixels = vae.first_stage_model.decode(latent.to(vae.vae_dtype))
        return _still_image(vae.process_output(pixels.float().clone()))

    return Decoder(name, decode, (vae.patcher,))


def _taesd_decoder(latent_format: LatentFormat) -> Decoder:
    missing = _missing_taesd(latent_format)
    if missing:
        folders = ", ".join(folder_paths.get_folder_paths("vae_approx"))
        raise ValueError(
            f"decoder 'taesd' needs {' and '.join(missing)} in models/vae_approx (searched: "
            f"{folders}); get them from github.com/madebyollin/taesd (about 5 MB each, MIT), "
            "or choose another decoder"
        )
    from nodes import VAELoader

    weights = VAELoader.load_taesd(_taesd_name(latent_format))
    return _vae_decoder("taesd", comfy.sd.VAE(sd=weights), latent_format)


def _taesd_name(latent_format: LatentFormat) -> str | None:
    name = latent_format.taesd_decoder_name
    return name.removesuffix("_decoder") if name and name.endswith("_decoder") else None


def _missing_taesd(latent_format: LatentFormat) -> list[str]:
    """File names that are not installed; a description if the model has no TAESD at all."""
    name = _taesd_name(latent_format)
    if name is None:
        return ["a TAESD, which does not exist for this model,"]
    present = folder_paths.get_filename_list("vae_approx")
    wanted = [f"{name}_{part}." for part in ("encoder", "decoder")]
    return [f"{w}safetensors" for w in wanted if not any(p.startswith(w) for p in present)]


def _linear_decoder(latent_format: LatentFormat) -> Decoder:
    if latent_format.latent_rgb_factors is None:
        raise ValueError(
            "decoder 'linear_rgb' is not known for this model: connect a VAE to the input 'vae'"
        )
    with torch.inference_mode(False):  # kept for the whole run, and differentiated through
        factors = torch.tensor(latent_format.latent_rgb_factors)  # [C, 3]
        bias = torch.tensor(latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    enlarge = getattr(latent_format, "spacial_downscale_ratio", 8)

    def decode(process_latent_out: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
        if reshape is not None:
            latent = reshape(latent)
        latent = _still_image(latent)
        image = torch.einsum("bchw,cr->brhw", latent, factors.to(latent))
        image = (image + bias.to(latent)[:, None, None] + 1.0) / 2.0
        size = [side * enlarge for side in latent.shape[-2:]]
        return torch.nn.functional.interpolate(image, size=size, mode="bilinear")

    return Decoder("linear_rgb", decode)


def _still_image(frames: Tensor) -> Tensor:
    """``[B, C, 1, H, W]`` or ``[B, C, H, W]`` to ``[B, C, H, W]``.

    Raises:
        ValueError: there is more than one frame.
    """
    if frames.ndim == 4:
        return frames
    if frames.ndim != 5 or frames.shape[2] != 1:
        raise ValueError(
            "Z-Magic guides still images: expected one frame [B, C, 1, H, W], "
            f"got {list(frames.shape)}; set the latent's length to 1"
        )
    return frames[:, :, 0]
