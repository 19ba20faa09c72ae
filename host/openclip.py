"""OpenCLIP as an attribute network: two towers, of which sampling needs the image tower only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import comfy.model_management
import torch
from torch import Tensor, nn

from ..guidance.networks.open_clip_towers import VisionBlocks
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.pictures.regions import reference_view
from ..guidance.wording import encodable, one_line, quoted
from .networks import Network, shared
from .openclip_configs import LARGEST, check_configuration
from .openclip_reading import read_weights
from .openclip_training import ACTIVATIONS, NORMALIZATIONS, Training, training_of
from .openclip_weights import open_clip, published_tag
from .unread_text import unread_end

__all__ = ["ACTIVATIONS", "NORMALIZATIONS", "PRECISIONS", "OpenClip", "load_openclip"]

# Weights of a model that is made whatever the size of its file, so that the file is looked at.
SMALL_MODEL = 100_000_000

# Published models of CLIP have this one: their trainings clip it there.
LARGEST_SCALE = 100.0

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Texts(Protocol):
    """The protocol of text towers, which encode prompts."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Encode P prompts: embeddings ``[P, D]`` in float32, without gradients."""
        ...

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is too long for the tower, empty if it sees all of it."""
        ...


@dataclass(frozen=True, eq=False)
class OpenClip:
    """The image tower with its preprocessing, and what encodes prompts for it.

    Attributes:
        name: what messages call it.
        image: the image tower, from preprocessed pixels ``[B, 3, h, w]`` to embeddings ``[B, D]``.
        preprocessing: the way from a picture to those pixels.
        tap: makes a module on the tower's weights that returns the features after the chosen
            blocks, counted from 0, without the class token; None chooses all.
        texts: the text tower, which encodes prompts, or None.
        assumed: a sentence about what is not known of the weights, empty if nothing is assumed.
        preference: the published model of preferences that the weights are: "PickScore", "HPSv2";
            empty for others.
        scale: what cosines are multiplied with where they are compared, the weights' own.
    """

    name: str
    image: Network
    preprocessing: Preprocessing
    tap: Callable[[tuple[int, ...] | None], nn.Module]
    texts: "Texts | None" = None
    assumed: str = ""
    preference: str = ""
    scale: float = LARGEST_SCALE
    _taps: dict[tuple[int, ...], Network] = field(default_factory=dict, repr=False)

    def embeddings(self, pictures: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode reference pictures ``[R, 3, h, w]`` in [0, 1], outside sampling: ``[R, D]``.

        Args:
            mask: how much of each pixel counts, ``[R, 1, h, w]``, see ``reference_view``; or None.
        """
        given = (pictures,) if mask is None else (pictures, mask)
        return self.image.reference(
            lambda x, m=None: self.image(reference_view(x, m, self.preprocessing)[0]), *given
        )

    def after_blocks(self, blocks: tuple[int, ...]) -> Network:
        """Return the image tower up to its features after ``blocks``, counted from 1.

        Raises:
            ValueError: the tower has no such block.
        """
        if blocks not in self._taps:
            count = self._block_count()
            if not all(1 <= block <= count for block in blocks):
                raise ValueError(
                    f"expected blocks from 1 to {count}, those of {self.name}, "
                    f"got {', '.join(map(str, blocks))}"
                )
            self._taps[blocks] = self._tapped(tuple(block - 1 for block in blocks))
        return self._taps[blocks]

    def _tapped(self, blocks: tuple[int, ...] | None) -> Network:
        image = self.image
        return Network(self.tap(blocks), image.name, image.dtype, patcher=image.patcher)

    def _block_count(self) -> int:
        all_blocks = self._tapped(None)
        black = torch.zeros(1, 3, *self.preprocessing.size)
        return all_blocks.reference(lambda x: len(all_blocks(x)), black)


def load_openclip(
    architecture: str,
    path: Path,
    precision: str = "auto",
    *,
    download: bool = False,
    normalization: str = "automatic",
    activation: str = "automatic",
) -> OpenClip:
    """Load a model of open_clip with the weights of a local file.

    Args:
        architecture: the name of the architecture, one of ``open_clip.list_models()``.
        path: the file of the weights.
        precision: the precision of the computation, "auto" or one of PRECISIONS.
        download: whether a tokenizer that open_clip does not bring may be downloaded.
        normalization, activation: what the weights were trained with, one of NORMALIZATIONS and of
            ACTIVATIONS.

    Raises:
        ValueError: open_clip is missing or too old, does not know the architecture, or the file
            does not hold its weights.
    """
    _check(architecture, download)
    training = training_of(architecture, path, normalization, activation)
    if training.quick is None:
        _check_activation(architecture, path)
    dtype = _dtype(precision)
    options = (architecture, dtype, download, training)
    return shared(
        "openclip",
        path,
        options,
        lambda: _loaded(architecture, path, dtype, download, training),
    )


def _check(architecture: str, download: bool) -> None:
    module = open_clip()
    config = module.get_model_config(architecture) if architecture in module.list_models() else None
    if config is None:
        raise ValueError(
            f"open_clip has no architecture {quoted(architecture)}, expected one of its "
            "models such as ViT-B-32"
        )
    check_configuration(architecture, config)
    if "hf_model_name" in config["text_cfg"] and not download:
        raise ValueError(
            f"the text tower of {architecture} needs a configuration from the Internet; "
            "switch 'download' on or choose another architecture"
        )


def _check_activation(architecture: str, path: Path) -> None:
    module = open_clip()
    quick = f"{architecture}-quickgelu"
    tag = published_tag(architecture, path.name)
    published = module.get_pretrained_cfg(architecture, tag) if tag else {}
    is_quick = module.get_model_config(architecture).get("quick_gelu", False)
    wrong = published.get("quick_gelu", False) and not is_quick
    if wrong and quick in module.list_models():
        raise ValueError(
            f"the weights {quoted(path.name)} were trained with another activation than "
            f"{architecture}; choose the architecture {quick}"
        )


def _dtype(precision: str) -> torch.dtype:
    """The dtype of the computation; auto: the host's for text encoders, float32 on the CPU."""
    if precision != "auto":
        return PRECISIONS[precision]
    device = comfy.model_management.get_torch_device()
    if comfy.model_management.is_device_cpu(device):
        return torch.float32
    wanted = comfy.model_management.text_encoder_dtype(device)
    if wanted == torch.bfloat16 and comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    # Storage in 8 bits is the host's too; nothing is computed in it.
    if wanted != torch.float32 and comfy.model_management.should_use_fp16(device):
        return torch.float16
    return torch.float32


def _loaded(
    architecture: str,
    path: Path,
    dtype: torch.dtype,
    download: bool,
    training: Training,
) -> OpenClip:
    with torch.inference_mode(False), torch.no_grad():  # weights shall be ordinary tensors
        try:
            model = _empty_model(architecture, training.quick, path.stat().st_size).eval()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of whatever a configuration makes open_clip do
            raise ValueError(
                f"no model can be made of the configuration of {quoted(architecture)}: "
                f"choose another architecture, or correct it\n({one_line(error)})"
            ) from error
        read_weights(model, path, architecture)
    name = f"{architecture} {path.name}"
    visual = model.visual
    return OpenClip(
        name=name,
        image=Network(_Tower(visual), name, dtype),
        preprocessing=training.preprocessing(visual.image_size),
        tap=lambda blocks: VisionBlocks(visual, blocks),
        texts=_Texts(Network(_Tower(model.text), name, dtype), architecture, download),
        assumed=training.assumed,
        preference=training.preference,
        scale=model.logit_scale.exp().item(),
    )


def _empty_model(architecture: str, quick: bool | None, file_size: int) -> nn.Module:
    """The architecture with separate towers; nothing is downloaded for its weights.

    Args:
        quick: whether the activation is QuickGELU; None: the architecture's.
        file_size: the size of the weights in bytes.

    Raises:
        ValueError: the model has so many weights that they are not in the file.
    """
    module = open_clip()
    config = module.get_model_config(architecture)
    config.pop("custom_text", None)
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    if quick is not None:
        config["quick_gelu"] = quick
    if _least_weights(config) > max(file_size, SMALL_MODEL):  # they have one byte each at least
        raise ValueError(
            f"the model would have {_least_weights(config):,} weights at least, more than the file "
            f"holds in its {file_size:,} bytes"
        )
    kind = module.CoCa if "multimodal_cfg" in config else module.CustomTextCLIP
    return kind(**config)


def _least_weights(config: dict) -> int:
    """A lower bound of the number of weights in the transformers of a configuration."""
    total = 0
    for part in (config["vision_cfg"], config["text_cfg"]):
        width, layers = part.get("width"), part.get("layers")
        if isinstance(width, int) and isinstance(layers, int) and layers <= LARGEST["layers"]:
            total += 4 * width * width * layers  # the projections of the attention alone
    return total


class _Tower(nn.Module):
    """A tower as a network that returns one embedding."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        result = self.tower(x)
        return result if isinstance(result, Tensor) else result[0]  # CoCa returns tokens as well


class _Texts:
    """Prompts to embeddings by the text tower, which is loaded for that and then left alone."""

    def __init__(self, network: Network, architecture: str, download: bool):
        self.network = network
        self.architecture = architecture
        self.download = download

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """``[P, D]`` in float32.

        Raises:
            ValueError: the tokenizer would have to be downloaded.
        """
        return self.network.reference(self.network, self._tokens(list(prompts)))

    def unread(self, prompt: str) -> str:
        """The end of a prompt that the tower does not see, empty if it sees all of it."""
        return unread_end(prompt, lambda text: tuple(self._tokens([text])[0].tolist()))

    def _tokens(self, prompts: list[str]) -> Tensor:
        prompts = [encodable(prompt) for prompt in prompts]
        module = open_clip()
        text = module.get_model_config(self.architecture)["text_cfg"]
        foreign = bool(text.get("hf_tokenizer_name"))
        options = {"local_files_only": True} if foreign and not self.download else {}
        try:
            return module.get_tokenizer(self.architecture, **options)(prompts)
        except Exception as error:
            if not foreign:
                raise
            raise ValueError(
                f"the tokenizer '{text['hf_tokenizer_name']}' of {self.architecture} comes from "
                "the Internet and is not on this machine; switch 'download' on, "
                "or choose an architecture such as ViT-B-32, whose tokenizer open_clip brings"
            ) from error
