"""Decoders for guidance: from the predicted clean latent to an image, with a gradient.

By price: the latent's linear RGB factors, a tiny approximate decoder (TAESD), the VAE at half size,
the VAE itself.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import comfy.sd
import folder_paths
import torch
from comfy.latent_formats import LatentFormat
from torch import Tensor, nn

from .tiles import has_tiles

__all__ = ["DECODERS", "USUAL_SCALE", "Decoder", "choose_decoder", "halved", "is_tiny"]

log = logging.getLogger(__name__)

DECODERS = ("auto", "taesd", "vae_half", "vae", "linear_rgb")
# Decoders with fewer parameters are cheap as they are: TAESD has 2.4 million, the VAEs of SD and
# Flux 83 million.
TINY = 25_000_000
# The shorter side, in latent pixels, of a latent that `auto` decodes at half size: smaller ones
# show too little.
LARGE = 64
# Pixels of the picture per pixel of the latent, along a side.
USUAL_SCALE = 8

Tensors = Callable[[Tensor], Tensor]
# Runs a network's decode on a latent.
Run = Callable[[Tensors, Tensor], Tensor]


def _at_once(decode: Tensors, latent: Tensor) -> Tensor:
    return decode(latent)


@dataclass(frozen=True)
class Decoder:
    """``decode(process_latent_out, latent, run) -> image [B, 3, H, W]``, and its patchers.

    Args:
        kind: one of ``DECODERS`` without ``auto``.
        decode: takes the model's ``process_latent_out``, a latent on the model's own scale, and
            what runs a network's decode on a latent (``tiles.in_tiles``); without it: a call.
        patchers: the ModelPatchers that the host has to load together with the diffusion model.
        least_side: latents whose shorter side has that many pixels are decoded at half size;
            None: none are.
        instead: whether it takes the place of a connected VAE.
    """

    kind: str
    decode: Callable[..., Tensor]
    patchers: tuple = ()
    least_side: int | None = None
    instead: bool = False

    def name(self, latent: Sequence[int]) -> str:
        """What the report calls the decoder of latents of that shape."""
        if self.instead:
            return f"{self.kind} (installed; it takes the place of the connected VAE)"
        return "vae" if self.kind == "vae_half" and not self.halves(latent) else self.kind

    def halves(self, latent: Sequence[int]) -> bool:
        """Whether a latent of that shape is decoded at half size."""
        return _is_large(latent, self.least_side)

    def has_tiles(self, latent: Sequence[int]) -> bool:
        """Whether a latent of that shape is more than one tile."""
        *rest, height, width = latent
        if self.halves(latent):
            height, width = _half(height), _half(width)
        return bool(self.patchers) and has_tiles((*rest, height, width))


def _half(side: int) -> int:
    return round(side / 2)


def _is_large(shape: Sequence[int], least_side: int | None) -> bool:
    return least_side is not None and min(shape[-2:]) >= least_side


def choose_decoder(kind: str, vae: comfy.sd.VAE | None, latent_format: LatentFormat) -> Decoder:
    """Make the decoder of that kind for a model with that latent format.

    ``auto`` takes the model's TAESD if its files are installed, else the connected VAE, large
    latents at half size if it is not a tiny one, else the linear RGB factors.

    Raises:
        ValueError: the kind needs something that is not connected, not installed or not known
            for this model; the message names it.
    """
    if kind not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {kind!r}")
    if kind in ("vae", "vae_half"):
        if vae is None:
            raise ValueError(f"decoder '{kind}' needs a VAE at the input 'vae', got none")
        return _vae_decoder(kind, vae, latent_format, 2 if kind == "vae_half" else None)
    if kind == "taesd":
        return _taesd_decoder(latent_format)
    if kind == "linear_rgb":
        return _linear_decoder(latent_format)
    connected = vae and _automatic_vae(vae, latent_format)
    if (connected and is_tiny(vae.first_stage_model)) or _missing_taesd(latent_format):
        return connected or _linear_decoder(latent_format)
    try:
        return replace(_taesd_decoder(latent_format), instead=connected is not None)
    except Exception:  # whatever a damaged file makes the host raise
        if connected is None:
            raise
        log.warning("the installed TAESD could not be loaded: the VAE is used", exc_info=True)
        return connected


def is_tiny(network: nn.Module) -> bool:
    """Whether a decoder, with its encoder, is cheap as it is."""
    return sum(parameter.numel() for parameter in network.parameters()) < TINY


def _automatic_vae(vae: comfy.sd.VAE, latent_format: LatentFormat) -> Decoder:
    """The connected VAE, whole if it is tiny (TAESD, too, is connected as one).

    Latents of another scale than the usual one are whole as well: their channels are packed pixels
    (Flux 2), which cannot be averaged.
    """
    usual = getattr(latent_format, "spacial_downscale_ratio", USUAL_SCALE) == USUAL_SCALE
    if is_tiny(vae.first_stage_model) or not usual:
        return _vae_decoder("vae", vae, latent_format)
    return _vae_decoder("vae_half", vae, latent_format, LARGE)


def _vae_decoder(
    kind: str, vae: comfy.sd.VAE, latent_format: LatentFormat, least_side: int | None = None
) -> Decoder:
    if vae.latent_channels != latent_format.latent_channels:
        raise ValueError(
            f"the VAE has {vae.latent_channels} latent channels, but the model works with "
            f"{latent_format.latent_channels}: connect the VAE that belongs to this model"
        )

    def decode(process_latent_out: Tensors, latent: Tensor, run: Run = _at_once) -> Tensor:
        latent = process_latent_out(latent)
        if _is_large(latent.shape, least_side):
            latent = halved(latent)
        if vae.latent_dim == 3 and latent.ndim == 4:
            latent = latent.unsqueeze(2)
        # As VAE.decode does, without its preallocated output, which would cut the gradient;
        # process_output works in place, hence the clone.
        pixels = run(vae.first_stage_model.decode, latent.to(vae.vae_dtype))
        return _still_image(vae.process_output(pixels.float().clone()))

    return Decoder(kind, decode, (vae.patcher,), least_side)


def halved(latent: Tensor) -> Tensor:
    """``[B, C, ..., H, W]`` at half its height and width, without aliases."""
    size = [_half(side) for side in latent.shape[-2:]]
    flat = latent.flatten(1, -3)
    small = torch.nn.functional.interpolate(flat, size=size, mode="bilinear", antialias=True)
    return small.reshape(*latent.shape[:-2], *size)


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

    def decode(process_latent_out: Tensors, latent: Tensor, run: Run = _at_once) -> Tensor:
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
