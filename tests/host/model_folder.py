"""A folder of models for the server: the names that users have, over networks that we can have.

Real face networks stand under the names of insightface's pack where their kind matches; the others
are the published architectures with random weights.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from zmagic.host.demo_networks import PARSER_FILE

from .checkpoints import UNET, control_net_weights, write_sd15
from .published_openclip import write_openclip
from .published_segmenter import write_bisenet

__all__ = ["CHECKPOINT", "write_models"]

CHECKPOINT = "random_sd15.ckpt"
LORAS = (
    "Qwen-Image-Lightning-8steps-V1.0.safetensors",
    "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16.safetensors",
)
CONTROL_NET = "control_v11p_sd15_canny_fp16.safetensors"
OPENCLIP = "ViT-B-32_laion2b_s34b_b79k.safetensors"

# The packages' names for networks of one kind.
PACK = {
    "w600k_r50.onnx": "fr_feature.onnx",
    "2d106det.onnx": "fr_landmark.onnx",
    "det_10g.onnx": "fr_detect.onnx",
}

# Files of AuraFace, which the example graphs name.
SINGLE = {
    "glintr100.onnx": "fr_feature.onnx",
    "2d106det.onnx": "fr_landmark.onnx",
    "scrfd_10g_bnkps.onnx": "fr_detect.onnx",
}


def write_models(folder: Path, face_networks: Path) -> dict[str, Path]:
    """Write all models of the example workflows; kinds of models and their folders."""
    pack = folder / "insightface" / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    for name, source in PACK.items():
        shutil.copy(face_networks / source, pack / name)
    for name, source in SINGLE.items():
        shutil.copy(face_networks / source, folder / "insightface" / name)
    write_sd15(folder / "checkpoints", CHECKPOINT)
    write_openclip(folder / "open_clip").rename(folder / "open_clip" / OPENCLIP)
    (folder / "onnx").mkdir()
    shutil.copy(face_networks / "fr_expression.onnx", folder / "onnx")
    shutil.copy(PARSER_FILE, folder / "onnx")
    write_bisenet(folder / "onnx")
    (folder / "loras").mkdir()
    for name in LORAS:
        save_file(_lora(), folder / "loras" / name)
    (folder / "controlnet").mkdir()
    save_file(control_net_weights(), folder / "controlnet" / CONTROL_NET)
    kinds = ("checkpoints", "controlnet", "insightface", "loras", "onnx", "open_clip")
    return {kind: folder / kind for kind in kinds}


def _lora() -> dict[str, torch.Tensor]:
    """One layer of the checkpoint's UNet, of rank 1."""
    generator = torch.Generator().manual_seed(0)
    layer, width = "diffusion_model.time_embed.0", UNET["model_channels"]
    down, up = (torch.randn(s, generator=generator) for s in ((1, width), (4 * width, 1)))
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": 0.01 * up}
