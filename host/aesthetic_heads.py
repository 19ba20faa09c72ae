"""LAION's aesthetic heads: small files with linear layers on the embedding of a CLIP."""

from pathlib import Path

import torch
from torch import Tensor

from ..guidance.energies.preference import Scores, aesthetic
from ..guidance.networks.file_kinds import mishap
from ..guidance.optional_packages import needed
from ..guidance.wording import one_line, quoted
from .model_files import ModelKind, Source, find_file, installed_name, list_files, offered

__all__ = ["aesthetic_head_names", "find_aesthetic_head", "load_aesthetic_head"]

HEADS = ModelKind("aesthetic head", ("aesthetic",), (".pth", ".pt", ".safetensors"))

# Published heads, the one that most people know first.
PUBLISHED = {
    "sac+logos+ava1-l14-linearMSE.pth": Source(
        "https://github.com/christophschuhmann/improved-aesthetic-predictor, for OpenAI's ViT-L-14",
        "3.7 MB",
        "Apache 2.0",
    ),
    "sa_0_4_vit_l_14_linear.pth": Source(
        "https://github.com/LAION-AI/aesthetic-predictor, for OpenAI's ViT-L-14",
        "4 KB",
        "MIT",
    ),
}
DEFAULT_SOURCE = Source(
    "https://github.com/christophschuhmann/improved-aesthetic-predictor, for OpenAI's ViT-L-14",
    "3.7 MB",
    "Apache 2.0",
    name="sac+logos+ava1-l14-linearMSE.pth",
)

# The linear layers of a published head, by their places among layers that only trainings need.
STACK = tuple(f"layers.{place}." for place in (0, 2, 4, 6, 7))
SINGLE = ("",)


def aesthetic_head_names() -> list[str]:
    """List the files that are there, and the published ones, marked where they are not."""
    return offered(list_files(HEADS), list(PUBLISHED))


def find_aesthetic_head(name: str) -> Path:
    """Find the file called ``name``.

    Raises:
        ValueError: it is not there; the message says where to get it.
    """
    name = installed_name(name)
    return find_file(HEADS, name, PUBLISHED.get(str(name), DEFAULT_SOURCE))


def load_aesthetic_head(path: Path) -> Scores:
    """Read a head from a file.

    Raises:
        ValueError: the file cannot be read safely, or holds something else.
    """
    content = _content(path)
    for layers in (STACK, SINGLE):
        if set(content) == {f"{layer}{part}" for layer in layers for part in ("weight", "bias")}:
            return _made(path, content, layers)
    held = ", ".join(sorted(content)[:4]) or "nothing"
    raise ValueError(
        f"{quoted(path.name)} is no aesthetic head: get "
        f"{DEFAULT_SOURCE.name} from {DEFAULT_SOURCE}.\nExpected the weights and biases of five "
        f"linear layers (layers.0, 2, 4, 6, 7) or of one, got {quoted(held, 120)}"
    )


def _made(path: Path, content: dict[str, Tensor], layers: tuple[str, ...]) -> Scores:
    try:
        return aesthetic([(content[f"{each}weight"], content[f"{each}bias"]) for each in layers])
    except (ValueError, RuntimeError, IndexError) as error:  # shapes that no head has
        raise ValueError(
            f"{quoted(path.name)} is no aesthetic head: get it again\n({one_line(error)})"
        ) from error


def _content(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, read without running code."""
    try:
        if path.suffix.lower() == ".safetensors":
            return dict(needed("safetensors.torch", "safetensors").load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of safetensors', of torch's unpickler
        raise ValueError(
            f"{quoted(path.name)} cannot be read as an aesthetic head: {_why(path, error)}"
        ) from error
    content = content if isinstance(content, dict) else {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _why(path: Path, error: Exception) -> str:
    known = mishap(path) or ""
    if known and not known.startswith(("a checkpoint", "one of weights")):
        return f"it is {known}"
    if "weights_only" in str(error).lower():
        return (
            "it holds Python objects beside weights, which may run code and are not loaded.\n"
            "Get the weights alone (the .pth file, not the .pt of a whole network)"
        )
    return f"get it again\n({one_line(error)})"
