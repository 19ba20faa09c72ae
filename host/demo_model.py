"""The demo model: a small portrait model of the SD1.5 family, built from the host's own classes.

To the host it is an SD1.5 model of fewer channels: eps prediction, the SD1.5 noise schedule, a
prompt in CLIP's words. Samplers, LoRA, ControlNet hooks and model patches therefore treat it like
any other. Its latents are others: 16 numbers for each square of 8 x 8 pixels.
"""

from functools import partial
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..guidance.faces.crops import Faces
from .demo_words import DemoTokenizer

__all__ = [
    "AUTOENCODER_FILE",
    "AVERAGE_FACE",
    "FEW_STEPS_FILE",
    "FOLDER",
    "KNOWN_WORDS",
    "LATENT_CHANNELS",
    "LAYOUT_FILE",
    "MAN_FILE",
    "PHOTOGRAPH_FILE",
    "TEXT_CONFIG",
    "TEXT_ENCODER_FILE",
    "UNET_FILE",
    "WOMAN_FILE",
    "WORD_VECTORS",
    "demo_file",
    "face_in",
    "load_autoencoder",
    "load_photograph",
    "load_text_encoder",
    "load_unet",
    "with_few_steps",
    "with_whole_vocabulary",
]

FOLDER = Path(__file__).resolve().parents[1] / "demo_models"
UNET_FILE = FOLDER / "zmagic_demo_unet.safetensors"
TEXT_ENCODER_FILE = FOLDER / "zmagic_demo_text_encoder.safetensors"
AUTOENCODER_FILE = FOLDER / "zmagic_demo_autoencoder.safetensors"
FEW_STEPS_FILE = FOLDER / "zmagic_demo_4_steps_lora.safetensors"
PHOTOGRAPH_FILE = FOLDER / "photograph.jpg"
WOMAN_FILE = FOLDER / "woman.jpg"
MAN_FILE = FOLDER / "man.jpg"
LAYOUT_FILE = FOLDER / "layout.jpg"

# Left eye, right eye, nose tip, corners of the mouth in fractions of the picture, by the program
# that made the portraits.
FACE_POINTS = {
    WOMAN_FILE: ((0.404, 0.451), (0.587, 0.458), (0.472, 0.551), (0.414, 0.620), (0.549, 0.628)),
    MAN_FILE: ((0.475, 0.458), (0.648, 0.457), (0.593, 0.600), (0.496, 0.694), (0.649, 0.694)),
    LAYOUT_FILE: ((0.419, 0.393), (0.603, 0.407), (0.476, 0.496), (0.405, 0.602), (0.559, 0.617)),
}

# The same on average over the synthetic portraits that the networks of the demo were trained on.
AVERAGE_POINTS = ((0.415, 0.435), (0.588, 0.435), (0.501, 0.566), (0.426, 0.638), (0.575, 0.640))
AVERAGE_FACE = Faces.from_points(torch.tensor([AVERAGE_POINTS]), 1.0)

# All that the host's CLIP must know of the text encoder beside SD1.5's.
TEXT_CONFIG = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}

# Its file has the vectors of the words of the captions alone; the first key says which they are.
KNOWN_WORDS = "known_words"
WORD_VECTORS = "text_model.embeddings.token_embedding.weight"
VOCABULARY = 49408

LATENT_CHANNELS = 16

# Everything the host's UNetModel must know to build the trained network (12.7 M parameters);
# the host cannot guess it from the weights, since it recognizes SD1.5 by 320 channels.
UNET_CONFIG = {
    "image_size": 32,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": 64,
    "num_res_blocks": [2, 2, 1],
    "channel_mult": [1, 2, 3],
    "transformer_depth": [0, 0, 1, 1, 1],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": TEXT_CONFIG["hidden_size"],
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "adm_in_channels": None,
    "legacy": False,
}


class DemoLatents(comfy.latent_formats.LatentFormat):
    """Latents of the demo autoencoder as they are, with their colors for previews and linear RGB.

    No TAESD of another model shows them, hence none is named.
    """

    # Printed by 'python -m lab.training.latent_colors', by channel and for red, green, blue.
    RGB_FACTORS = ((0.0, 0.0, 0.0),) * LATENT_CHANNELS
    RGB_BIAS = (0.0, 0.0, 0.0)

    latent_channels = LATENT_CHANNELS

    def __init__(self) -> None:
        self.latent_rgb_factors = [list(row) for row in self.RGB_FACTORS]
        self.latent_rgb_factors_bias = list(self.RGB_BIAS)


class DemoPortraits(comfy.supported_models.SD15):
    """SD1.5 as the host describes it, with the demo network's attention heads and latents."""

    unet_config = UNET_CONFIG
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}
    latent_format = DemoLatents

    def inpaint_model(self) -> bool:
        """Whether some channels are a mask and a masked picture: to the host, if more than 4."""
        return False


def load_unet(path: str | Path = UNET_FILE, disable_dynamic: bool = False) -> Any:
    """Load the demo UNet under the host's memory management, in the dtype the host chooses.

    Args:
        path: the file of the weights.
        disable_dynamic: the host's request for a patcher without dynamic memory, made when it
            reloads the model for a deep copy.

    Returns:
        The host's MODEL (a model patcher).

    Raises:
        FileNotFoundError: the weights are not there.
    """
    weights = comfy.utils.load_torch_file(str(demo_file(path)))
    device = comfy.model_management.get_torch_device()
    model = _config_for(weights, device).get_model(weights)
    # Read at run time: the host replaces CoreModelPatcher when dynamic memory is on.
    patcher_class = (
        comfy.model_patcher.ModelPatcher
        if disable_dynamic
        else comfy.model_patcher.CoreModelPatcher
    )
    patcher = patcher_class(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )
    assign = {"assign": True} if getattr(patcher, "is_dynamic", bool)() else {}
    model.load_model_weights(weights, **assign)
    # Lets the host reload the weights when it needs a deep copy (training, several GPUs).
    patcher.cached_patcher_init = (load_unet, (str(path),))
    return patcher


def with_few_steps(model: Any, path: str | Path = FEW_STEPS_FILE) -> Any:
    """Return the demo MODEL with the LoRA by which four steps without cfg make a picture.

    Sample with euler and sgm_uniform, as it was distilled; ``model`` stays as it is.

    Raises:
        FileNotFoundError: the LoRA is not there.
    """
    lora = comfy.utils.load_torch_file(str(demo_file(path)))
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def load_autoencoder(path: str | Path = AUTOENCODER_FILE) -> Any:
    """Load the demo autoencoder as the host's VAE; its layout is that of TAESD.

    Raises:
        FileNotFoundError: the weights are not there.
    """
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(demo_file(path))))
    vae.throw_exception_if_invalid()
    if hasattr(comfy.sd, "load_vae_patcher"):  # hosts that can put the VAE on a second device
        vae.patcher.cached_patcher_init = (comfy.sd.load_vae_patcher, (str(path), None, None))
    return vae


def load_text_encoder(
    path: str | Path = TEXT_ENCODER_FILE, disable_dynamic: bool = False
) -> comfy.sd.CLIP:
    """Load the text encoder as the host's CLIP, which says in the log what words it does not know.

    Args:
        path: the file of the weights.
        disable_dynamic: as for ``load_unet``.

    Raises:
        FileNotFoundError: the weights are not there.
    """
    weights = comfy.utils.load_torch_file(str(demo_file(path)))
    known = weights[KNOWN_WORDS].tolist()
    weights = with_whole_vocabulary(weights)
    clip = comfy.sd.CLIP(
        DemoPortraits(UNET_CONFIG).clip_target(),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data={"clip_l_tokenizer_class": partial(DemoTokenizer, known)},
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        model_options={"clip_l_model_config": TEXT_CONFIG},
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (_text_encoder_patcher, (str(path),))
    return clip


def with_whole_vocabulary(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights with a vector for each of CLIP's words: zero if it has none."""
    weights = dict(weights)
    known, vectors = weights.pop(KNOWN_WORDS), weights[WORD_VECTORS]
    table = vectors.new_zeros(VOCABULARY, vectors.shape[1])
    table[known.long()] = vectors
    weights[WORD_VECTORS] = table
    return weights


def load_photograph(path: str | Path = PHOTOGRAPH_FILE) -> torch.Tensor:
    """Load one of the pictures as the host's IMAGE, ``[1, H, W, 3]`` in [0, 1].

    Raises:
        FileNotFoundError: the file is not there.
    """
    with Image.open(demo_file(path)) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 255.0)[None]


def face_in(path: Path) -> Faces:
    """Tell where the face is in one of the synthetic portraits.

    Raises:
        KeyError: it is none of them.
    """
    return Faces.from_points(torch.tensor([FACE_POINTS[path]]), 1.0)


def demo_file(path: str | Path) -> Path:
    """Return ``path`` if the file is there.

    Raises:
        FileNotFoundError: it is not; the sentence says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"the demo file '{path.name}' is missing from the folder 'demo_models' of this "
            "pack; install the pack again, or copy that file there from its repository"
        )
    return path


def _text_encoder_patcher(path: str, disable_dynamic: bool = False) -> Any:
    return load_text_encoder(path, disable_dynamic).patcher


def _config_for(weights: dict[str, torch.Tensor], device: torch.device) -> DemoPortraits:
    """The model's configuration, with the dtypes the host chooses for these weights here."""
    config = DemoPortraits(UNET_CONFIG)
    supported = list(config.supported_inference_dtypes)
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(
        dtype, comfy.model_management.unet_manual_cast(dtype, device, supported)
    )
    return config
